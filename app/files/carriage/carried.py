"""How a file travels to a deployment in a chat: by the provider's id, inside the request, as text, or not at all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson

from app.deployments import Deployment
from app.errors import BadRequest, GatewayError, Missing, Overloaded, ProviderError, ProviderTooLarge
from app.files.content import is_readable, open_content
from app.files.mappings import FileMapping, Replica
from app.files.references import Reference, position
from app.formats.media import inline_part, text_part
from app.gateway import Gateway
from app.providers.protocol import Carriage

# From here on encoding takes longer than asking a thread.
LARGE_FILE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Carried:
    """One file on its way to one deployment; `reference` is where it stands in the `body` of a chat, or of one in a
    batch."""

    gateway: Gateway
    deployment: Deployment
    file: FileMapping
    body: bytes
    reference: Reference
    in_batch: bool = False

    @property
    def where(self) -> str:
        """Its place in the request, for errors."""
        return position(self.body, self.reference)

    @property
    def carriage(self) -> Carriage:
        """How the provider takes files of this type."""
        capabilities = self.deployment.provider.capabilities
        found = capabilities.carriage(self.deployment.provider_model, self.file.mime_type)
        return "inline" if found == "reference" and self.in_batch and capabilities.batch.inline_files else found

    @property
    def is_coming(self) -> bool:
        """Whether the provider has the file but is not done with it, or is getting it."""
        replica = self._replica
        return self.carriage == "reference" and replica is not None and replica.coming

    @property
    def can_be_made(self) -> bool:
        """Whether a replica can be made for this deployment now."""
        account, file, replica = self.deployment.account, self.file, self._replica
        capabilities = account.provider.capabilities
        free = (
            replica is None
            or replica.expired
            or replica.never_begun
            or (replica.state == "failed" and replica.due_at is not None and replica.due_at <= time.time())
        )
        return (
            free
            and self.carriage == "reference"
            and file.purpose in capabilities.purposes
            and file.size_bytes <= capabilities.max_file_bytes
            and is_readable(self.gateway, file)
        )

    @property
    def _replica(self) -> Replica | None:
        return self.file.replicas.get(self.deployment.account.name)

    def obstacle(self) -> GatewayError | None:
        """Why the file cannot travel, but not where it stands: to find that, the whole body is read. None when it
        can."""
        carriage = self.carriage
        if carriage == "reference":
            return None if self.file.holds(self.deployment.account.name) else self._no_replica()
        provider = self.deployment.account.provider_name
        if carriage == "unsupported":
            reason = f"{provider} takes no files of type {self.file.mime_type} in a chat"
            return BadRequest(reason, code="unsupported_file_type")
        if not self.reference.in_file_part:
            return BadRequest("a file id belongs in a content part of type file", code="file_id_outside_part")
        limit = self.deployment.provider.capabilities.max_inline_bytes(self.file.mime_type)
        if self.file.size_bytes > limit:
            return ProviderTooLarge(
                f"files of type {self.file.mime_type} travel to {provider} inside the request and may have {limit} "
                f"bytes; this one has {self.file.size_bytes}"
            )
        if not is_readable(self.gateway, self.file):
            return BadRequest(
                f"files of type {self.file.mime_type} travel to {provider} inside the request, but the gateway keeps "
                "no copy of this one (filemux.sources) and no provider that has it gives it back",
                code="content_not_available",
            )
        return None

    async def is_lost(self) -> bool:
        """Whether the provider says that it does not hold the file any more."""
        provider_file_id = self.file.at(self.deployment.account.name)
        if provider_file_id is None:
            return False
        try:
            await self.deployment.provider.retrieve_file(provider_file_id)
        except Missing:
            return True
        except ProviderError:
            pass
        return False

    async def part(self) -> bytes:
        """The content part in which the file's bytes travel, as JSON. Raises what open_content does."""
        content = bytearray()
        async with open_content(self.gateway, self.file) as opened:
            async for chunk in opened.chunks:
                content += chunk
        if len(content) != self.file.size_bytes:
            raise Overloaded(f"{self.where}: the file could not be read whole")
        made = asyncio.to_thread(self._part_of, bytes(content)) if len(content) > LARGE_FILE_BYTES else None
        return await made if made else self._part_of(bytes(content))

    def _part_of(self, content: bytes) -> bytes:
        file = self.file
        if self.carriage == "text":
            return orjson.dumps(text_part(file.filename, content, self.where))
        return orjson.dumps(inline_part(file.mime_type, file.filename, content))

    def _no_replica(self) -> GatewayError:
        replica, provider = self._replica, self.deployment.account.provider_name
        if replica is not None and (replica.coming or replica.never_begun):
            doing = "processing" if replica.state == "processing" else "being sent"
            reason = f"{provider} is still {doing} the file"
            return Overloaded(reason, code="file_processing", retry_after_seconds=5)
        if replica is not None and replica.state == "failed":
            reason = f"{provider} did not take the file: {replica.last_error}"
            if replica.due_at is None:
                return BadRequest(reason, code="file_without_replica")
            wait = max(1.0, replica.due_at - time.time())
            return Overloaded(reason, code="file_without_replica", retry_after_seconds=wait)
        return BadRequest(
            f"the file {self.file.file_id} is not at the provider of {self.deployment.model_name!r}{self._why()}",
            code="file_without_replica",
        )

    def _why(self) -> str:
        """Why none can be made."""
        account, purpose = self.deployment.account, self.file.purpose
        if not is_readable(self.gateway, self.file):
            return ", and the gateway keeps no copy from which to send it there (filemux.sources)"
        if account.stores_files and purpose not in account.provider.capabilities.purposes:
            return f", which takes no files of purpose {purpose!r}"
        return ""
