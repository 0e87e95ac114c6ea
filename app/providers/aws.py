"""An AWS account's credentials, as botocore finds them, for botocore's own signer and for obstore."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from app.errors import Unauthorized, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Credential


class AwsCredentials:
    """What `find` finds, when first asked for. That is in a thread: botocore reads files, STS and the instance's
    metadata."""

    def __init__(self, find: Callable[[], Credentials | None]) -> None:
        self._find = find
        self._found: Credentials | None = None
        self._finding = threading.Lock()

    async def current(self) -> ReadOnlyCredentials:
        """Credentials that are valid for some minutes at least. Raises Unauthorized or Unavailable."""
        found = self._found
        if found is None or (isinstance(found, RefreshableCredentials) and found.refresh_needed()):
            return await asyncio.to_thread(self._renewed)
        return found.get_frozen_credentials()

    async def for_objects(self) -> S3Credential:
        """The same, as obstore wants them. botocore renews them ten minutes before they expire, at the latest."""
        found = await self.current()
        assert found.access_key and found.secret_key
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        }

    def _renewed(self) -> ReadOnlyCredentials:
        try:
            with self._finding:
                self._found = self._found or self._find()
            if self._found is None:
                raise Unauthorized("no AWS credentials are given, and botocore finds none where it looks")
            return self._found.get_frozen_credentials()
        except (ConnectionError, HTTPClientError) as failure:
            raise Unavailable(f"AWS gives out no credentials ({type(failure).__name__})") from failure
        except (BotoCoreError, ClientError) as failure:
            raise Unauthorized(f"the account's AWS credentials cannot be had ({type(failure).__name__})") from failure
