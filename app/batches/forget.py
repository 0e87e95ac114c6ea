"""A batch that is over: what its parts have left at their providers (inputs, results) is deleted, for certain."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from app.batches import queries
from app.batches.advance import Rest
from app.batches.parts import account_of, all_of, asked
from app.db.session import Row
from app.deployments import Account
from app.errors import Missing, Overloaded
from app.gateway import Gateway
from app.providers.protocol import ENDED

PAGE = 100


async def forget(gateway: Gateway, batch: Row) -> Rest | None:
    """Delete it. Raises GatewayError for what is to be tried again."""
    async with gateway.database.read() as reader:
        parts = await queries.parts_of(reader, batch["id"])
    left = [part for part in parts if part["state"] != "gone" or part["surplus_batch_ids"]]
    await all_of(_forget_part(gateway, batch, part) for part in left)
    return Rest(None)


async def _forget_part(gateway: Gateway, batch: Row, part: Row) -> None:
    made = {*part["surplus_batch_ids"], part["provider_batch_id"]} - {None}
    if part["input_names"] or made:
        account = account_of(gateway, part)
        for provider_batch_id in made:
            await _forget_results(account, provider_batch_id)
        await _delete_inputs(account, part)
    values: dict[str, Any] = {"state": "gone", "custom_ids": None, "surplus_batch_ids": []}
    async with gateway.database.write() as writer:
        await queries.record_part(writer, batch, part["id"], values)


async def _forget_results(account: Account, provider_batch_id: str) -> None:
    with suppress(Missing):
        found = await asked(account, provider_batch_id, cancel=True)
        if found.status not in ENDED:
            raise Overloaded("a batch that was created twice has not ended yet")
        await account.provider.forget_batch(found)


async def _delete_inputs(account: Account, part: Row) -> None:
    names, known = part["input_names"], set(part["input_provider_file_ids"])
    if len(known) < len(names):
        # An upload was not answered.
        if account.provider.capabilities.chooses_id:
            known |= {account.provider.chosen_file_id(name) for name in names}
        else:
            known |= await _named(account, part)
    for provider_file_id in known:
        try:
            await account.provider.delete_file(provider_file_id)
        except Missing:
            continue


async def _named(account: Account, part: Row) -> set[str]:
    """The ids of the files of these names, which nobody else uses."""
    names = {f"{name.removesuffix('.jsonl')}.jsonl" for name in part["input_names"]}
    found: set[str] = set()
    after: str | None = None
    while True:
        page = await account.provider.list_files(after, PAGE)
        found |= {one.id for one in page.files if one.filename in names}
        after = page.after
        if after is None:
            return found
