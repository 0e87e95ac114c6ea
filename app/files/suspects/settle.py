"""What an operator decides about a suspect, a provider's file that may be what a lost upload has left: it is ours and
unwanted (delete), it is the file of this upload (adopt), or it is not ours (dismiss). Nothing else ever touches it."""

from __future__ import annotations

from app.access.audit import Actor
from app.db.session import Database, Row, Rows, Writer
from app.errors import BadRequest, Missing, NotFound
from app.files.outcomes import stored_values
from app.files.replicas.queries import has_pending_twin
from app.files.suspects import queries
from app.gateway import Gateway
from app.providers.protocol import ProviderFile


async def delete_suspect(database: Database, actor: Actor, account: str, provider_file_id: str) -> None:
    """It is ours and unwanted: the worker deletes it until it is gone. Raises NotFound or BadRequest."""
    async with database.write() as writer:
        replicas = await _suspecting(writer, account, provider_file_id)
        await _check_is_nobodys(writer, replicas[0], provider_file_id)
        await queries.want_deleted(writer, replicas[0], provider_file_id)
        for replica in replicas:
            await queries.clear(writer, replica, provider_file_id)
        await actor.did(writer, "suspect.delete", provider_file_id, {"account": account})


async def dismiss_suspect(database: Database, actor: Actor, account: str, provider_file_id: str) -> None:
    """It is not ours: it is forgotten, and stays where it is. Raises NotFound."""
    async with database.write() as writer:
        for replica in await _suspecting(writer, account, provider_file_id):
            await queries.clear(writer, replica, provider_file_id)
        await actor.did(writer, "suspect.dismiss", provider_file_id, {"account": account})


async def adopt_suspect(
    gateway: Gateway, actor: Actor, account: str, provider_file_id: str, file_id: str | None = None
) -> str:
    """It is what an upload has made, whose replica is stored from now on; returns the file's id.

    Raises NotFound; BadRequest, which says what would be right; or what the provider answers.
    """
    known = gateway.deployments.accounts.get(account)
    if known is None:
        raise BadRequest(f"the account {account!r} is not in the configuration, so its provider cannot be asked")
    async with gateway.database.write() as writer:
        _adopter(await _suspecting(writer, account, provider_file_id), file_id)
    try:
        found = await known.provider.retrieve_file(provider_file_id)
    except Missing:
        raise BadRequest(f"the provider does not hold {provider_file_id} any more: dismiss it") from None
    async with gateway.database.write() as writer:
        replicas = await _suspecting(writer, account, provider_file_id)
        adopter = _adopter(replicas, file_id)
        await _check_is_nobodys(writer, adopter, provider_file_id)
        _check_is_whole(found, adopter)
        await queries.adopt(writer, adopter, stored_values(found))
        for replica in replicas:
            if replica["id"] != adopter["id"]:
                await queries.clear(writer, replica, provider_file_id)
        await actor.did(writer, "suspect.adopt", provider_file_id, {"account": account, "file": adopter["file_id"]})
    return str(adopter["file_id"])


async def _suspecting(writer: Writer, account: str, provider_file_id: str) -> Rows:
    replicas = await queries.suspecting(writer, account, provider_file_id)
    if not replicas:
        raise NotFound(f"there is no suspect {provider_file_id!r} at the account {account!r}")
    return replicas


async def _check_is_nobodys(writer: Writer, replica: Row, provider_file_id: str) -> None:
    """Raise BadRequest if the suspect is, or may be about to become, another upload's file."""
    known = await queries.known_as(writer, provider_file_id)
    if known is not None:
        raise BadRequest(f"{provider_file_id} is the replica of {known['file_id']} at {known['account']}: dismiss it")
    if await has_pending_twin(writer, replica, replica):
        reason = f"{provider_file_id} may be that of another upload of {replica['filename']!r}, which has not ended yet"
        raise BadRequest(f"{reason}: try again when it has")


def _adopter(replicas: Rows, file_id: str | None) -> Row:
    """The replica that the suspect is to become."""
    uploads = [one for one in replicas if file_id in (None, one["file_id"])]
    if len(uploads) != 1:
        found = ", ".join(one["file_id"] for one in replicas)
        raise BadRequest(f"it may be that of any of these uploads: {found}; name the one that it is", param="file")
    [upload] = uploads
    if upload["file_state"] != "ready":
        raise _unadoptable(f"{upload['file_id']} is not wanted any more")
    if upload["replaces"] is not None:
        raise _unadoptable(f"{upload['file_id']} had another replica there already")
    return upload


def _check_is_whole(found: ProviderFile, upload: Row) -> None:
    """Raise BadRequest if what the provider holds is not the file."""
    if found.bytes != upload["bytes"]:
        raise _unadoptable(f"it has {found.bytes} bytes, and {upload['file_id']} has {upload['bytes']}")
    if found.sha256 not in (None, upload["sha256"]):
        raise _unadoptable(f"its SHA-256 is {found.sha256}, and that of {upload['file_id']} is {upload['sha256']}")


def _unadoptable(reason: str) -> BadRequest:
    return BadRequest(f"{reason}: delete the suspect, or dismiss it if it is not ours")
