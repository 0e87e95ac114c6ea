"""Azure OpenAI (Microsoft Foundry): OpenAI's API with other URLs, another auth header and fewer purposes.

Contract: https://learn.microsoft.com/azure/ai-foundry/openai/reference and …/api-version-lifecycle.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator

from app.formats.batch_lines import CHAT_ENDPOINT
from app.providers import openai
from app.providers.http import Http, base_url
from app.providers.protocol import BatchLimits

# --- declaration ------------------------------------------------------------------------------------------------

CAPABILITIES = replace(
    openai.CAPABILITIES,
    purposes=frozenset({"assistants", "batch", "fine-tune", "vision", "user_data"}),
    readable=frozenset({"batch", "fine-tune"}),
    batch=BatchLimits(endpoints=frozenset({CHAT_ENDPOINT, "/v1/responses"}), max_lines=100_000),
)

_V1 = ("v1", "latest", "preview")
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")


class AzureParams(BaseModel):
    """The parameters of an Azure OpenAI resource. `api_version` is dated, or `v1` (the default)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_base: str
    api_key: SecretStr | None = None
    azure_ad_token: SecretStr | None = None
    api_version: str = "v1"

    @field_validator("api_base")
    @classmethod
    def _is_url(cls, text: str) -> str:
        return base_url(text).removesuffix("/v1").removesuffix("/openai")

    @field_validator("api_version")
    @classmethod
    def _is_version(cls, text: str) -> str:
        if text not in _V1 and not _DATED.fullmatch(text):
            raise ValueError("must be v1, or dated such as 2024-10-21 or 2025-04-01-preview")
        return text

    @model_validator(mode="after")
    def _has_one_credential(self) -> Self:
        if (self.api_key is None) == (self.azure_ad_token is None):
            raise ValueError("exactly one of api_key and azure_ad_token is required")
        return self


class Azure(openai.OpenAI):
    """One Azure OpenAI resource; a model is a deployment's name there."""

    capabilities = CAPABILITIES
    # The how-to guide (2026) says that user_data is not supported and assistants is to be used (wire.md §2b).
    purpose_map = {"user_data": "assistants"}  # noqa: RUF012  annotated in the parent

    def __init__(self, params: AzureParams, http: Http) -> None:
        if params.api_key:
            headers = {"api-key": params.api_key.get_secret_value()}
        else:
            assert params.azure_ad_token
            headers = {"authorization": f"Bearer {params.azure_ad_token.get_secret_value()}"}
        self._dated = params.api_version not in _V1
        if self._dated:
            self._connect(f"{params.api_base}/openai", headers, http, {"api-version": params.api_version})
        else:
            self._connect(f"{params.api_base}/openai/v1", headers, http)

    def _chat_path(self, provider_model: str) -> str:
        """The dated form names the deployment in the path, the v1 form in the body."""
        if not self._dated:
            return super()._chat_path(provider_model)
        return f"/deployments/{quote(provider_model, safe='')}/chat/completions"
