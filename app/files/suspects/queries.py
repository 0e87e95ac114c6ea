"""All SQL about suspects: the column `suspects` of replicas whose upload was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, null, select, update
from sqlalchemy.dialects.postgresql import insert

from app import ids
from app.db.session import Row, Rows, Writer
from app.db.tables import files, replicas
from app.files.replicas.queries import forget_replica, record_made


async def suspecting(writer: Writer, account: str, provider_file_id: str) -> Rows:
    """The replicas that a provider's file may be, each with its file's facts, all locked."""
    of_file = (files.c.state.label("file_state"), files.c.filename, files.c.bytes, files.c.sha256)
    return await writer.all(
        select(replicas, *of_file)
        .join(files, files.c.id == replicas.c.file_id)
        .where(replicas.c.account == account, replicas.c.suspects.contains([{"provider_file_id": provider_file_id}]))
        .order_by(replicas.c.id)
        .with_for_update()
    )


async def known_as(writer: Writer, provider_file_id: str) -> Row | None:
    """A replica that is this provider's file, at whichever account: two may belong to one organization."""
    return await writer.first(select(replicas).where(replicas.c.provider_file_id == provider_file_id).limit(1))


async def want_deleted(writer: Writer, replica: Row, provider_file_id: str) -> None:
    """Have a suspect deleted, by a row of its own: the replica may have more of them."""
    copied = {name: replica[name] for name in ("file_id", "account", "provider")}
    values = {"id": ids.new_replica_id(), "provider_file_id": provider_file_id, "state": "deleting"}
    await writer.execute(insert(replicas).values(**copied, **values, due_at=func.now()))


async def adopt(writer: Writer, replica: Row, values: Mapping[str, Any]) -> None:
    """A suspect is what the upload made."""
    await record_made(writer, replica, {**values, "suspects": null()})


async def clear(writer: Writer, replica: Row, provider_file_id: str) -> None:
    """A suspect is not what the upload made. With the last one it is settled that there is no such file: the replica
    is made again if it is still wanted, else forgotten."""
    left = [one for one in replica["suspects"] if one["provider_file_id"] != provider_file_id]
    if not left and (replica["file_state"] != "ready" or replica["replaces"] is not None):
        await forget_replica(writer, replica)
        return
    again = {"suspects": null(), "due_at": func.now(), "attempts": 0, "last_error": "the upload's answer was lost"}
    values = {"suspects": left} if left else again
    await writer.execute(update(replicas).where(replicas.c.id == replica["id"]).values(**values))
