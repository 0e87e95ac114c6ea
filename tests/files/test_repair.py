"""What a repair does not take for the file of a lost upload, however much it looks like it."""

import time

import pytest

from app.files.repair import repair_due
from app.providers.protocol import ProviderFile, ProviderFilePage
from tests.files.test_suspects import place
from tests.support.replicas import Replicas
from tests.support.uploads import PDF

__all__ = ["place"]


@pytest.fixture
def listed(place, monkeypatch):
    """Have the provider list a file like a lost one, made so many seconds ago."""

    def listed(seconds_ago=0):
        file = ProviderFile(place.a, place.filename, len(PDF), "user_data", int(time.time()) - seconds_ago)

        async def list_files(*_):
            return ProviderFilePage((file,), None)

        monkeypatch.setattr(place.provider, "list_files", list_files)

    return listed


async def is_left_alone(place, **columns):
    """Whether a repair looks again, for there is nothing that it could take."""
    lost = Replicas(place.database, await place.lost(state="pending", file_state="failed"))
    await lost.set(**columns)
    assert await repair_due(place.gateway) == 1
    [row] = await lost.all()
    return (row["state"], row["provider_file_id"], row["looks"]) == ("pending", None, 1)


@pytest.mark.parametrize("another", [{"state": "stored"}, {"state": "pending"}], ids=["stored", "on its way"])
async def test_what_another_account_of_the_provider_has_made_is_left_alone(place, listed, another):
    """Two keys of one organization see the same files."""
    listed()
    provider_file_id = place.a if another["state"] == "stored" else None
    await place.lost(**another, provider_file_id=provider_file_id, account="of the same organization")
    assert await is_left_alone(place, due_at="now()")


@pytest.mark.parametrize(("seconds_ago", "left_alone"), [(0, True), (3600, False), (7200, True)])
async def test_what_was_made_at_another_time_is_left_alone(place, listed, seconds_ago, left_alone):
    listed(seconds_ago)
    hour_ago = "now() - interval '1 hour'"
    lost = {"created_at": f"{hour_ago} - interval '1 minute'", "lost_at": hour_ago}
    assert await is_left_alone(place, **lost, due_at="now()") is left_alone
