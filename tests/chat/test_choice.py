"""Which deployments may answer, without a gateway around the choice."""

import time
from types import SimpleNamespace

import orjson
import pytest

from app import ids
from app.deployments import Account, Deployment, Deployments
from app.errors import BadRequest
from app.files.carriage import carried, choice
from app.files.mappings import FileMapping, Replica
from app.files.references import find, position
from tests.support.chats import file_part
from tests.support.providers import MemoryProvider

ACCOUNTS = [Account(name, "openai", MemoryProvider()) for name in ("without", "failed", "with")]
FAILED = Replica("1", "failed", None, None, last_error="no")
STORED = Replica("2", "stored", "file-1", time.time() + 3600)
CALLER = SimpleNamespace(reach=None, models=None, may_use=lambda _: True)


def choosing(*accounts, **replicas):
    """The choice of a chat with one file among these accounts."""
    file_id = ids.new_file_id()
    file = FileMapping(file_id, "team", "a.pdf", "application/pdf", "user_data", 4, "", None, None, replicas)

    async def found(_reach, _file_id):
        return file

    gateway = SimpleNamespace(
        deployments=Deployments([Deployment("m", "gpt", one, one.provider) for one in accounts], {}),
        mappings=SimpleNamespace(find=found),
        sources=SimpleNamespace(holds=lambda _: False),
    )
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [file_part(file_id)]}]})
    return choice.Choice(gateway, CALLER, "m", body, find(body))


@pytest.fixture
def looks(monkeypatch):
    """The positions that were looked for."""
    found = []

    def counted(body, reference):
        found.append(position(body, reference))
        return found[-1]

    for module in (carried, choice):
        monkeypatch.setattr(module, "position", counted)
    return found


async def test_where_a_file_stands_is_looked_for_only_to_be_told(looks):
    """That reads the whole body, and keeps all other callers waiting meanwhile."""
    [candidate] = await choosing(*ACCOUNTS, failed=FAILED, **{"with": STORED}).candidates()
    assert (candidate.deployment.account.name, looks) == ("with", [])
    with pytest.raises(BadRequest) as refused:
        await choosing(*ACCOUNTS[:2], failed=FAILED).candidates()
    assert looks == [refused.value.param] == ["messages[0].content[0].file.file_id"]
    assert refused.value.message.startswith(f"{looks[0]}: ")
