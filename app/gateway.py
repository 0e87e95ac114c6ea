"""What every room is handed: made once by `app.main`, found in each request's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

if TYPE_CHECKING:
    from app.access.authenticate import Caller, Keys
    from app.batches.advance import Runs
    from app.db.session import Database
    from app.deployments import Deployments
    from app.files.backfill.make import Backfills
    from app.files.direct.listing import Cursors
    from app.files.mappings import Mappings
    from app.files.sources import Sources
    from app.seals import Seals
    from app.settings import Options


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a running gateway."""

    options: Options
    spool_dir: Path
    database: Database
    deployments: Deployments
    keys: Keys
    mappings: Mappings
    sources: Sources
    backfills: Backfills
    batches: Runs
    seals: Seals
    cursors: Cursors


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    found = request.scope["state"]["gateway"]
    assert isinstance(found, Gateway)
    return found


async def caller_of(request: Request) -> Caller:
    """Who sent this request. Raises Unauthenticated."""
    caller = await gateway_of(request).keys.authenticate(request.scope["headers"])
    request.scope["state"]["caller"] = caller
    return caller
