"""Every provider that can stand in a configuration, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from app.providers import anthropic, azure, bedrock, gemini, openai, vertex
from app.providers.http import Http
from app.providers.protocol import Capabilities, Provider
from app.yaml_file import ENVIRONMENT_MARK


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A provider's name in the configuration, its class, and the parameters it takes.

    `defaults` fills a parameter that the file leaves out; a value `os.environ/NAME` is looked up as if written.
    `environment` fills it with the first of these variables that is set, if one is.
    """

    name: str
    provider: Callable[[Any, Http], Provider]
    params: type[BaseModel]
    capabilities: Capabilities
    defaults: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def filling(self) -> dict[str, str]:
        """What stands for the parameters that the file leaves out, as the file would write it."""
        found = {key: next(filter(os.environ.get, names), None) for key, names in self.environment.items()}
        return {**self.defaults, **{key: ENVIRONMENT_MARK + name for key, name in found.items() if name}}


def _openai() -> ProviderKind:
    defaults = {"api_key": "os.environ/OPENAI_API_KEY"}
    return ProviderKind("openai", openai.OpenAI, openai.OpenAIParams, openai.CAPABILITIES, defaults)


def _azure() -> ProviderKind:
    defaults = {"api_base": "os.environ/AZURE_API_BASE"}
    return ProviderKind("azure", azure.Azure, azure.AzureParams, azure.CAPABILITIES, defaults)


def _anthropic() -> ProviderKind:
    defaults = {"api_key": "os.environ/ANTHROPIC_API_KEY"}
    return ProviderKind("anthropic", anthropic.Anthropic, anthropic.AnthropicParams, anthropic.CAPABILITIES, defaults)


def _gemini() -> ProviderKind:
    defaults = {"api_key": "os.environ/GEMINI_API_KEY"}
    return ProviderKind("gemini", gemini.Gemini, gemini.GeminiParams, gemini.CAPABILITIES, defaults)


def _vertex() -> ProviderKind:
    environment = {
        "vertex_project": ("VERTEXAI_PROJECT",),
        "vertex_location": ("VERTEXAI_LOCATION",),
        "gcs_bucket": ("GCS_BUCKET_NAME",),
    }
    return ProviderKind("vertex_ai", vertex.Vertex, vertex.VertexParams, vertex.CAPABILITIES, environment=environment)


def _bedrock() -> ProviderKind:
    environment = {
        "aws_region_name": ("AWS_REGION", "AWS_DEFAULT_REGION"),
        "api_key": ("AWS_BEARER_TOKEN_BEDROCK",),
        "aws_batch_role_arn": ("AWS_BATCH_ROLE_ARN",),
    }
    return ProviderKind(
        "bedrock", bedrock.Bedrock, bedrock.BedrockParams, bedrock.CAPABILITIES, environment=environment
    )


def _compatible(name: str, api_base: str, api_key: str | None = None) -> ProviderKind:
    defaults = {"api_base": api_base} | ({"api_key": api_key} if api_key else {})
    kind = openai.Compatible
    return ProviderKind(name, kind, openai.CompatibleParams, kind.capabilities, defaults)


REGISTRY: Mapping[str, ProviderKind] = {
    kind.name: kind
    for kind in (
        _openai(),
        _azure(),
        _anthropic(),
        _gemini(),
        _vertex(),
        _bedrock(),
        _compatible("hosted_vllm", "os.environ/HOSTED_VLLM_API_BASE"),
        _compatible("groq", "https://api.groq.com/openai/v1", "os.environ/GROQ_API_KEY"),
        _compatible("mistral", "https://api.mistral.ai/v1", "os.environ/MISTRAL_API_KEY"),
        _compatible("moonshot", "https://api.moonshot.ai/v1", "os.environ/MOONSHOT_API_KEY"),
        _compatible("together_ai", "https://api.together.ai/v1", "os.environ/TOGETHERAI_API_KEY"),
    )
}
