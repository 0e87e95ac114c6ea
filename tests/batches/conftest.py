"""What the tests of batches share: the gateway that has all six providers."""

from tests.every_provider.conftest import client, six, six_clients
from tests.files.conftest import rows

__all__ = ["client", "rows", "six", "six_clients"]
