"""How a file travels to a deployment in a chat: by the provider's id, inside the request, as text, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson

from app.deployments import Deployment
from app.errors import BadRequest, GatewayError, Overloaded, ProviderTooLarge
from app.files.content import is_readable, open_content
from app.files.mappings import FileMapping
from app.files.references import Reference, position
from app.formats.media import inline_part, text_part
from app.gateway import Gateway
from app.providers.protocol import Carriage

# From here on encoding takes longer than asking a thread.
LARGE_FILE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Carried:
    """One file on its way to one deployment; `reference` is where it stands in the request's `body`."""

    gateway: Gateway
    deployment: Deployment
    file: FileMapping
    body: bytes
    reference: Reference

    @property
    def where(self) -> str:
        """Its place in the request, for errors."""
        return position(self.body, self.reference)

    @property
    def carriage(self) -> Carriage:
        """How the provider takes files of this type."""
        capabilities = self.deployment.provider.capabilities
        return capabilities.carriage(self.deployment.provider_model, self.file.mime_type)

    @property
    def is_processing(self) -> bool:
        """Whether the provider has the file but is not done with it."""
        replica = self.file.replicas.get(self.deployment.account.name)
        return self.carriage == "reference" and replica is not None and not replica.ready

    def obstacle(self) -> GatewayError | None:
        """Why the file cannot travel; None when it can."""
        carriage = self.carriage
        if carriage == "reference":
            return None if self.file.holds(self.deployment.account.name) else self._no_replica()
        provider = self.deployment.account.provider_name
        if carriage == "unsupported":
            return self._refused(
                f"{provider} takes no files of type {self.file.mime_type} in a chat", "unsupported_file_type"
            )
        if not self.reference.in_file_part:
            return self._refused("a file id belongs in a content part of type file", "file_id_outside_part")
        limit = self.deployment.provider.capabilities.max_inline_bytes(self.file.mime_type)
        if self.file.size_bytes > limit:
            return ProviderTooLarge(
                f"{self.where}: files of type {self.file.mime_type} travel to {provider} inside the request and may "
                f"have {limit} bytes; this one has {self.file.size_bytes}",
                param=self.where,
            )
        if not is_readable(self.gateway, self.file):
            return self._refused(
                f"files of type {self.file.mime_type} travel to {provider} inside the request, but the gateway keeps "
                "no copy of this one (filemux.sources) and no provider that has it gives it back",
                "content_not_available",
            )
        return None

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
        if self.is_processing:
            reason = f"{self.where}: {self.deployment.account.provider_name} is still processing the file"
            return Overloaded(reason, param=self.where, code="file_processing", retry_after_seconds=5)
        return self._refused(
            f"the file {self.file.file_id} is not at the provider of {self.deployment.model_name!r}",
            "file_without_replica",
        )

    def _refused(self, reason: str, code: str) -> BadRequest:
        return BadRequest(f"{self.where}: {reason}", param=self.where, code=code)
