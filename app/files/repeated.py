"""An upload whose idempotency key another one has taken: nothing is sent to any provider, and the caller gets the file
that the first one has made."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from app.access import idempotency
from app.access.authenticate import Caller
from app.access.bodies import answer
from app.access.idempotency import REPLAYED_HEADER, Claim
from app.db.session import Row
from app.files import queries
from app.files.multipart import FileStart
from app.files.read import shown, target
from app.files.replicas import queries as replica_queries
from app.files.spool import Spool
from app.files.targets import Wanted
from app.gateway import Gateway

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.05, 1.0


def claim_of(caller: Caller, key: str | None, part: FileStart, wanted: Wanted) -> Claim | None:
    """What an upload asks for besides the file's bytes, as the client wrote it: what is recognised or configured may
    be another thing the next time."""
    if key is None:
        return None
    wishes = [wanted.purpose, sorted(wanted.target_names), wanted.model, wanted.provider, wanted.expires_after_seconds]
    return Claim.of(caller.team_id, key, [part.filename, part.mime_type, *wishes])


async def first_file(gateway: Gateway, claim: Claim, spool: Spool) -> Row | None:
    """The file that the first upload with this key has made, waited for; None when it failed, so that the key is free.

    Raises BadRequest when that one asked for something else, or its file is deleted.
    """
    wait = FIRST_LOOK_SECONDS
    while (first := await _look(gateway, claim)) is not None and first["state"] == "uploading":
        await asyncio.sleep(wait)
        wait = min(2 * wait, LAST_LOOK_SECONDS)
    if first is None:
        return None
    if first["request_sha256"] != claim.request_sha256:
        raise idempotency.reused("its fields, the file's name or its type differ")
    if not first["exists"]:
        raise idempotency.used("file")
    if (first["bytes"], first["sha256"]) != (spool.size_bytes, spool.sha256):
        raise idempotency.reused("the file's content differs")
    return first


async def _look(gateway: Gateway, claim: Claim) -> Row | None:
    async with gateway.database.read() as reader:
        return await queries.find_first_upload(reader, claim.team_id, claim.key)


async def replayed(gateway: Gateway, first: Row) -> Response:
    """The first upload's answer once more, with its replicas as they are now."""
    async with gateway.database.read() as reader:
        replicas = await replica_queries.file_replicas(reader, [first["id"]])
    response = answer(shown(first, [target(replica) for replica in replicas]))
    response.headers[REPLAYED_HEADER] = "true"
    return response
