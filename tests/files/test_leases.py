"""Work under a lease: it outlives a short outage, and what nobody can end holds up nothing else. Where it is lost, what
two have done about it is settled once."""

import asyncio
import contextlib
import uuid
from types import SimpleNamespace

import pytest
from sqlalchemy import func, update

from app import ids
from app.db.session import STATEMENT_SECONDS
from app.db.tables import files
from app.deployments import Account, Deployments
from app.errors import Overloaded, Unavailable
from app.files.delete import delete_due
from app.files.leases import LEASE_SECONDS, renewing
from app.files.made import being_made
from app.files.multipart import FileStart
from app.files.processing import processing_due
from app.files.repair import repair_due
from app.files.sources import sources_due
from app.files.spool import Spool
from app.files.targets import Wanted
from app.files.transfer import Transfer
from tests.files.test_suspects import Place
from tests.support.providers import MemoryProvider
from tests.support.replicas import Replicas
from tests.support.uploads import PDF

DUE = "now() - interval '1 second'"


class NamingPlace(Place):
    """An account that no gateway has, whose files bear names of ours."""

    def __init__(self, database):
        super().__init__(database)
        self.provider = MemoryProvider(chooses_id=True)
        self.gateway = gateway_of(database, self)

    async def stored(self, state, **columns):
        """A replica that is due in a state, and what the provider holds of it."""
        replica_id = ids.new_replica_id()
        named = self.provider.chosen_file_id(replica_id)
        self.provider.files[named] = PDF
        known = None if state == "pending" else named
        file_id = await self.lost(state=state, id=replica_id, provider_file_id=known)
        replicas = Replicas(self.database, file_id)
        await replicas.set(due_at=DUE, **columns)
        return replicas


def gateway_of(database, *places, sources=None):
    deployments = Deployments([], {one.name: Account(one.name, "openai", one.provider) for one in places})
    options = SimpleNamespace(upload_policy="all")
    return SimpleNamespace(database=database, deployments=deployments, options=options, sources=sources)


@pytest.fixture
async def new_place(database):
    async with contextlib.AsyncExitStack() as stack:

        def new():
            made = NamingPlace(database)
            stack.push_async_callback(made.forget)
            return made

        yield new


@pytest.fixture
async def spool(tmp_path):
    async with Spool(tmp_path) as opened:
        yield opened


# --- renewed ----------------------------------------------------------------------------------------------------


class Outage:
    """A database, and a clock: it hangs when a lease is first renewed, for as long as a statement may take."""

    def __init__(self):
        self.now, self.renewed = 0.0, asyncio.Event()

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.now += seconds

    @contextlib.asynccontextmanager
    async def write(self):
        if self.now <= LEASE_SECONDS / 3:
            self.now += STATEMENT_SECONDS
            raise Overloaded("the database cannot be reached", retry_after_seconds=1)
        yield

    async def renew(self, _writer, _seconds):
        self.renewed.set()
        await asyncio.Event().wait()


async def test_a_lease_outlives_a_statement_that_hangs(monkeypatch):
    outage = Outage()
    clock = SimpleNamespace(sleep=outage.sleep, create_task=asyncio.create_task)
    monkeypatch.setattr("app.files.leases.asyncio", clock)
    lease = renewing(outage, outage.renew)
    await outage.renewed.wait()
    lease.cancel()
    assert LEASE_SECONDS / 3 + STATEMENT_SECONDS < outage.now < LEASE_SECONDS


# --- lost -------------------------------------------------------------------------------------------------------


class Store:
    """Where the test's own gateway keeps files, once it is let to."""

    def __init__(self):
        self.store, self.kept, self.asked, self.let = f"s3:{uuid.uuid4().hex}", set(), asyncio.Event(), asyncio.Event()
        self.stores = (self.store,)

    def holds(self, store):
        return store == self.store

    async def keep(self, file_id, _spool):
        self.asked.set()
        await self.let.wait()
        self.kept.add(file_id)

    async def remove(self, _store, file_id):
        self.kept.discard(file_id)


async def test_a_file_given_up_before_it_was_kept_is_not_kept_for_ever(database, new_place, spool):
    place, store = new_place(), Store()
    gateway = gateway_of(database, sources=store)
    await spool.write(PDF)
    await spool.finish()

    async def make():
        kind = {"team_id": "team-default", "purpose": "batch_output", "mime_type": "application/jsonl"}
        made = being_made(gateway, {**kind, "filename": place.filename}, spool, None)
        async with made as file, database.write() as writer:
            await file.ready(writer)

    making = asyncio.create_task(make())
    await store.asked.wait()
    [file_id] = await place.file_ids()
    async with database.write() as writer:
        await writer.execute(update(files).where(files.c.id == file_id).values(due_at=func.now()))
    assert await sources_due(gateway) == 1
    store.let.set()
    with pytest.raises(Overloaded, match="given up"):
        await making
    assert (store.kept, await place.file_ids()) == (set(), set())


async def test_what_repair_has_found_is_not_forgotten_by_an_upload_that_gives_up(new_place, spool):
    place, store = new_place(), Store()
    place.provider.answers.clear()
    place.provider.fail("upload_file", Unavailable("no answer", outcome_unknown=True))
    gateway = gateway_of(place.database, place, sources=store)
    caller = SimpleNamespace(team_id="team-default", key_id=None)
    part = FileStart(place.filename, "application/pdf", len(PDF))
    wanted = Wanted("user_data", ("mini",), model=None, provider=None, expires_after_seconds=None)
    transfer = await Transfer.begin(gateway, caller, spool, part, wanted, {place.name: ("mini",)})
    await spool.write(PDF)
    await spool.finish()
    await place.provider.delivered.wait()
    [file_id] = await place.file_ids()
    replicas = Replicas(place.database, file_id)
    [row] = await replicas.all()
    place.provider.files[place.provider.chosen_file_id(row["id"])] = PDF
    await replicas.set(due_at=DUE)
    assert await repair_due(gateway) == 1
    place.provider.answers.set()
    await transfer.give_up()
    assert await delete_due(gateway) == 1
    assert (place.provider.files, await place.rows()) == ({}, [])


# --- due --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("work", "state"), [(processing_due, "processing"), (repair_due, "pending")])
async def test_a_provider_that_hangs_holds_up_no_other(database, new_place, work, state):
    hanging, well = new_place(), new_place()
    hanging.provider.retrieve_file = lambda _: asyncio.Event().wait()
    await hanging.stored(state, stored_at="now()")
    replicas = await well.stored(state, stored_at="now()")
    working = asyncio.create_task(work(gateway_of(database, hanging, well)))
    await replicas.become("stored")
    working.cancel()
    await asyncio.wait({working})


async def test_a_provider_that_was_away_for_long_has_not_lost_a_file(new_place):
    place = new_place()
    place.provider.fail("retrieve_file", Unavailable("away"))
    replicas = await place.stored("processing", stored_at="now() - interval '31 minutes'")
    await processing_due(place.gateway)
    [row] = await replicas.all()
    assert (row["state"], row["last_error"]) == ("processing", "away")
    await replicas.set(due_at=DUE)
    await processing_due(place.gateway)
    await replicas.become("stored")


async def test_what_is_lost_while_it_is_processed_can_be_made_again(new_place):
    place = new_place()
    await place.stored("processing", stored_at="now()")
    place.provider.files.clear()
    await processing_due(place.gateway)
    await delete_due(place.gateway)
    assert await place.rows() == []
