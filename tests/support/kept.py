"""What the tests of kept bytes share, wherever they are kept."""

import httpx
import pytest
from sqlalchemy import text

from tests.conftest import MASTER_KEY
from tests.support.uploads import BOUNDARY

MIB = 1024 * 1024
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


class Place:
    """A gateway's data directory."""

    def __init__(self, directory):
        self.directory = directory

    @property
    def kept(self):
        """File id → path of what is kept."""
        return {path.name: path for path in self.directory.glob("sources/*/*")}

    @property
    def spooled(self):
        return [*self.directory.glob("spool/*")]

    def is_empty(self):
        return not self.kept and not self.spooled


async def lease_ends(database, filename):
    """Let the lease of everything that belongs to a file have passed."""
    replicas = "UPDATE replicas SET due_at = now() WHERE file_id IN (SELECT id FROM files WHERE filename = :name)"
    async with database.write() as writer:
        await writer.execute(text("UPDATE files SET due_at = now() WHERE filename = :name"), {"name": filename})
        await writer.execute(text(replicas), {"name": filename})


def cut_off(url, filename, content):
    """An upload whose gateway does not live to answer it."""
    form = {
        "data": {"purpose": "user_data", "target_model_names": "mini,azure"},
        "files": {"file": (filename, content)},
    }
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/v1/files", headers={"authorization": f"Bearer {MASTER_KEY}"}, timeout=60, **form)
