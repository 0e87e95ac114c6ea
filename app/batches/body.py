"""What POST /batches asks for."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.requests import Request

from app.files.direct.address import asked_provider
from app.files.targets import MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS, named_model
from app.formats.batch_lines import ENDPOINTS, metadata_of, with_v1


class ExpiresAfter(BaseModel):
    """When the results are to be deleted."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRY_SECONDS, le=MAX_EXPIRY_SECONDS)


class OfProvider(BaseModel):
    """A body that may name the provider whose own batch is meant."""

    model_config = ConfigDict(extra="forbid")

    provider: str | None = None
    custom_llm_provider: str | None = None

    @property
    def named_provider(self) -> str | None:
        """The provider, by either name of the field."""
        return self.provider or self.custom_llm_provider


class BatchCreate(OfProvider):
    """POST /batches. OpenAI's fields, and those by which other gateways' users say more."""

    input_file_id: str | None = None
    requests: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    endpoint: str
    completion_window: Literal["24h"] = "24h"
    metadata: dict[str, Any] | None = None
    output_expires_after: ExpiresAfter | None = None
    model: str | None = None
    output_s3_uri: str | None = None
    output_gcs_uri: str | None = None
    role_arn: str | None = None
    job_name: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$")

    @field_validator("input_file_id")
    @classmethod
    def _is_given(cls, text: str | None) -> str | None:
        # The SDK wants one even where the requests come inline.
        return text or None

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, text: str) -> str:
        if with_v1(text) not in ENDPOINTS:
            raise ValueError(f"must be one of {', '.join(sorted(ENDPOINTS))}")
        return with_v1(text)

    @field_validator("metadata")
    @classmethod
    def _is_metadata(cls, value: Any) -> Any:
        return value and metadata_of(value)

    @model_validator(mode="after")
    def _has_one_input(self) -> Self:
        if (self.input_file_id is None) == (self.requests is None):
            raise ValueError(
                "give input_file_id, the id of a file of purpose batch, or requests, the requests themselves"
            )
        return self

    def told_by(self, request: Request) -> BatchCreate:
        """The same with what path, query and headers add to the body."""
        model = self.model or named_model(request.query_params.multi_items(), request.headers)
        return self.model_copy(update={"model": model, "provider": self.named_provider or asked_provider(request)})
