"""GET /files of accounts, and not of the rows: the providers' own lists, page by page."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.access.authenticate import Caller
from app.deployments import Account
from app.errors import BadRequest, Rejected
from app.files.direct import address, queries
from app.files.direct.shown import purpose_of, shown
from app.gateway import Gateway
from app.providers.protocol import ProviderFile, StoragePlace
from app.seals import FILE

# Files asked for in one call of a provider, and how many calls one page of ours may cost once it has a file.
CALL_FILES = 1000
CALLS = 20
MAX_REMEMBERED = 1000
# How far a provider's clock may be behind ours.
CLOCK_SKEW_SECONDS = 300

Found = tuple[Account, ProviderFile]


class Cursors:
    """Where a list goes on behind a file, as its provider says it: a page's last file → the cursor of the next page.

    Only a shortcut: another process, or one that was started anew, finds the place from the beginning.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def keep(self, place: tuple[object, ...], cursor: str) -> None:
        """Remember a place; of too many the oldest is forgotten."""
        self._known[place] = cursor
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def take(self, place: tuple[object, ...]) -> str | None:
        """What is remembered of a place."""
        return self._known.get(place)

    def forget(self, place: tuple[object, ...]) -> None:
        """What is remembered is not true any more."""
        self._known.pop(place, None)


class Listing:
    """The files of some accounts that a caller may see, those of a purpose if one is named."""

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        accounts: Sequence[Account],
        *,
        model_name: str | None = None,
        purpose: str | None = None,
        storage: StoragePlace | None = None,
    ) -> None:
        self._gateway, self._caller, self._model_name = gateway, caller, model_name
        self._purpose, self._storage = purpose, storage
        self._accounts = deque(accounts)
        self._cursor: str | None = None

    async def page(self, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """The File objects behind the one of this id, and whether there are more. Raises BadRequest."""
        found = await self._behind(after, limit) if after else []
        calls = 0
        while self._accounts and len(found) < limit and not (found and calls >= CALLS):
            found += await self._visible(*await self._call(limit - len(found)))
            calls += 1
        rest = found[limit:]
        if not rest and found:
            rest = await self._peek(found[-1])
        return [shown(file, account, self._id_of(account, file)) for account, file in found[:limit]], bool(rest)

    async def _peek(self, last: Found) -> list[Found]:
        """The next files, if there are any; where they begin is remembered."""
        rest: list[Found] = []
        while self._accounts and not rest:
            account, cursor = self._accounts[0], self._cursor
            rest = await self._visible(*await self._call(CALL_FILES))
            if rest and cursor and account is last[0]:
                self._gateway.cursors.keep(self._place(*last), cursor)
        return rest

    async def _call(self, limit: int) -> tuple[Account, tuple[ProviderFile, ...]]:
        """One page of the first account; behind its last one the next account is the first."""
        account = self._accounts[0]
        page = await account.provider.list_files(self._cursor, min(limit, CALL_FILES), self._storage)
        self._cursor = page.after
        if page.after is None:
            self._accounts.popleft()
        return account, page.files

    async def _visible(self, account: Account, files: Sequence[ProviderFile]) -> list[Found]:
        wanted = [one for one in files if self._purpose in (None, purpose_of(one))]
        if not wanted:
            return []
        foreign = await address.foreign(self._gateway, self._caller, [account], [one.id for one in wanted])
        arriving = await self._arriving(account)
        return [(account, one) for one in wanted if one.id not in foreign and not arriving.may_be(one)]

    async def _arriving(self, account: Account) -> Arriving:
        providers, team_id = address.providers_of([account]), self._caller.team_id
        async with self._gateway.database.read() as reader:
            rows = await queries.arriving_files(reader, team_id, providers)
            since = await queries.results_arrive_since(reader, team_id, providers)
        return Arriving({row["filename"]: row["created_at"] for row in rows}, since)

    # --- where the page begins ----------------------------------------------------------------------------------

    async def _behind(self, after: str, limit: int) -> list[Found]:
        """Go to the place behind a file; the first files there."""
        account, own_id = self._named(after)
        while self._accounts and self._accounts[0].name != account.name:
            self._accounts.popleft()
        place = self._place(account, own_id)
        if cursor := self._gateway.cursors.take(place):
            self._cursor = cursor
            try:
                return await self._visible(*await self._call(limit))
            except Rejected:
                # It is no cursor any more.
                self._gateway.cursors.forget(place)
                self._cursor = None
        while self._accounts and self._accounts[0] is account:
            _, files = await self._call(CALL_FILES)
            for index, one in enumerate(files):
                if address.provider_file_id(account, one.id) == own_id:
                    return await self._visible(account, files[index + 1 :])
        raise self._bad_after(after)

    def _named(self, after: str) -> tuple[Account, str]:
        """The account and the provider's own id of the file that a page is to follow."""
        if self._model_name is None:
            account = self._accounts[0]
            own_id = address.provider_file_id(account, after)
        else:
            sealed = self._gateway.seals.open(FILE, after, self._caller.reach)
            name = sealed and (sealed.account or self._accounts[0].name)
            account = next((one for one in self._accounts if one.name == name), self._accounts[0])
            own_id = address.provider_file_id(account, sealed.provider_id) if sealed else None
        if own_id is None:
            raise self._bad_after(after)
        return account, own_id

    def _place(self, account: Account, file: ProviderFile | str) -> tuple[object, ...]:
        """What a cursor is remembered by: what is left out of a list differs from caller to caller."""
        own_id = file if isinstance(file, str) else address.provider_file_id(account, file.id)
        return account.name, self._storage, self._caller.team_id, self._purpose, own_id

    def _id_of(self, account: Account, file: ProviderFile) -> str:
        if self._model_name is None:
            return file.id
        return address.seal(self._gateway, self._caller, account, self._model_name, file.id)

    @staticmethod
    def _bad_after(after: str) -> BadRequest:
        return BadRequest(f"after must be the id of a file in this list, not {after[:100]!r}", param="after")


@dataclass(frozen=True, slots=True)
class Arriving:
    """What other teams' rows do not know the ids of yet: uploads by their filenames, and results of batches, each not
    made before."""

    uploads: Mapping[str, datetime]
    results_since: datetime | None

    def may_be(self, file: ProviderFile) -> bool:
        """Whether a file may be one of them."""
        begun = [self.uploads.get(file.filename or "")]
        if file.purpose == "batch_output":
            begun.append(self.results_since)
        return any(
            moment and (file.created_at is None or file.created_at >= moment.timestamp() - CLOCK_SKEW_SECONDS)
            for moment in begun
        )
