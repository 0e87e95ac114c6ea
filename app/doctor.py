"""`filemux doctor`: is the configuration right, the database there, and does each account answer?"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

from rich.filesize import decimal

from app import deployments
from app.db import migrations
from app.db.session import Database
from app.deployments import Account
from app.errors import GatewayError, Overloaded, ProviderError
from app.files.stores import BucketStore
from app.providers.http import open_http
from app.settings import Settings

ANSWER_SECONDS = 15
NO_ANSWER = f"no answer within {ANSWER_SECONDS} s"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    what: str
    ok: bool
    detail: str


async def examine(settings: Settings, database_url: str) -> list[Finding]:
    """Check everything; an account costs one cheap call. Raises SettingsError for a configuration that is wrong."""
    async with open_http() as http:
        built = deployments.build(settings, http)
        findings = [_configuration(settings, built.ignored), await _sources(settings), await _database(database_url)]
        findings += await asyncio.gather(*(_account(account) for account in built.accounts.values()))
    return findings


def _configuration(settings: Settings, ignored: tuple[str, ...]) -> Finding:
    foreign = sorted({*settings.ignored, *ignored})
    detail = f"{len(settings.models)} deployments; uploads need {settings.options.upload_policy} targets"
    return Finding("configuration", True, detail + (f"; ignored: {', '.join(foreign)}" if foreign else ""))


async def _sources(settings: Settings) -> Finding:
    if settings.options.sources.store == "s3":
        return await _bucket(BucketStore(settings.options.sources))
    directory = settings.data_dir / "sources"
    if settings.options.sources.store == "none":
        detail = f"no bytes are kept; without `filemux: {{sources: {{store: none}}}}` they are, in {directory}"
    else:
        there = next(path for path in (directory, *directory.parents) if path.exists())
        free = decimal(shutil.disk_usage(there).free)
        detail = f"bytes are kept in {directory}, {free} free; `filemux: {{sources: {{store: none}}}}` keeps none"
    return Finding("sources", True, detail)


async def _bucket(store: BucketStore) -> Finding:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await store.check()
    except OSError as failure:
        # A TimeoutError is one too, without words.
        return Finding("sources", False, f"bytes are to be kept in {store.id}: {str(failure) or NO_ANSWER}")
    return Finding("sources", True, f"bytes are kept in {store.id}, which answers")


async def _database(url: str) -> Finding:
    database = Database(url)
    try:
        found = await migrations.current(database)
    except Overloaded as failure:
        return Finding("database", False, failure.message)
    finally:
        await database.close()
    head = migrations.head()
    detail = f"revision {found}" if found == head else f"revision {found}, not {head}: run `filemux migrate`"
    return Finding("database", found == head, detail)


async def _account(account: Account) -> Finding:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await account.provider.check()
    except ProviderError as failure:
        return Finding(f"account {account.name}", False, failure.message)
    except TimeoutError:
        return Finding(f"account {account.name}", False, NO_ANSWER)
    except GatewayError as failure:
        return Finding(f"account {account.name}", False, failure.message)
    files = "stores files" if account.stores_files else "has no Files API"
    return Finding(f"account {account.name}", True, f"{account.provider_name}: answers; {files}")
