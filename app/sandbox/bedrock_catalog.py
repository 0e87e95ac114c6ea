"""The models that the simulated Bedrock serves: what each takes, and how they are listed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.sandbox.bedrock_errors import bad_request

# An inference profile's prefix, and the ARN of a model or a profile.
_MODEL_ID = re.compile(
    r"(?:arn:aws:bedrock:[a-z0-9-]+:(?:[0-9]{12}:inference-profile|:foundation-model)/)?(?:(?:us|eu|global)\.)?(.+)"
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model. What is said of its limits is from the vendors' pages, not from the service model [U]."""

    id: str
    name: str
    provider: str
    modalities: tuple[str, ...]
    # The blocks with files that it reads, and whether it fetches them from S3 (wire.md §6c).
    media: frozenset[str]
    reads_s3: bool = False
    max_tokens: int
    max_stop_sequences: int = 2500
    # The choices of tools that it knows, and whether it knows of tools that failed (service model).
    tool_choices: frozenset[str] = frozenset({"auto", "any", "tool"})
    takes_result_status: bool = True
    # The members of additionalModelRequestFields, and the types of thinking.
    fields: frozenset[str] = frozenset()
    thinking: frozenset[str] = frozenset()

    @property
    def is_claude(self) -> bool:
        """Whether Anthropic's own checks come after Bedrock's."""
        return self.provider == "Anthropic"

    def summary(self) -> dict[str, Any]:
        """Return the model as ListFoundationModels shows it."""
        return {
            "modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{self.id}",
            "modelId": self.id,
            "modelName": self.name,
            "providerName": self.provider,
            "inputModalities": [*self.modalities],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": [],
            "inferenceTypesSupported": ["ON_DEMAND"],
            "modelLifecycle": {"status": "ACTIVE"},
        }


def _nova(kind: str) -> Model:
    return Model(
        id=f"amazon.nova-{kind}-v1:0",
        name=f"Nova {kind.capitalize()}",
        provider="Amazon",
        modalities=("TEXT", "IMAGE", "VIDEO"),
        # Whether Nova takes audio blocks depends on its generation (wire.md §0.3) [U].
        media=frozenset({"image", "document", "video", "audio"}),
        reads_s3=True,
        max_tokens=10_000,
        max_stop_sequences=4,
        fields=frozenset({"inference_config"}),
    )


def _claude(release: str, name: str, thinking: frozenset[str]) -> Model:
    return Model(
        id=f"anthropic.claude-{release}",
        name=name,
        provider="Anthropic",
        modalities=("TEXT", "IMAGE"),
        media=frozenset({"image", "document"}),
        max_tokens=64_000,
        fields=frozenset({"thinking", "tool_choice", "anthropic_beta", "top_k"}),
        thinking=thinking,
    )


_LLAMA = Model(
    id="meta.llama3-3-70b-instruct-v1:0",
    name="Llama 3.3 70B Instruct",
    provider="Meta",
    modalities=("TEXT",),
    media=frozenset({"document"}),
    max_tokens=8192,
    tool_choices=frozenset({"auto"}),
    takes_result_status=False,
)
# Adaptive thinking came with 4.6:
# https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking#supported-models
_MODELS = (
    *(_nova("lite"), _nova("pro")),
    # Retired; Bifrost's examples name it.
    _claude("3-sonnet-20240229-v1:0", "Claude 3 Sonnet", frozenset()),
    _claude("sonnet-4-5-20250929-v1:0", "Claude Sonnet 4.5", frozenset({"enabled"})),
    _claude("sonnet-4-6", "Claude Sonnet 4.6", frozenset({"enabled", "adaptive"})),
    _LLAMA,
)
_BY_ID = {model.id: model for model in _MODELS}
# The parameters of ListFoundationModels, and the members that they are about.
_FILTERS = {
    "byProvider": "providerName",
    "byOutputModality": "outputModalities",
    "byInferenceType": "inferenceTypesSupported",
    "byCustomizationType": "customizationsSupported",
}


def require_model(model_id: str) -> Model:
    """Return the model with this id or ARN, of its own or of an inference profile, or refuse."""
    found = _MODEL_ID.fullmatch(model_id)
    if found is None or found[1] not in _BY_ID:
        raise bad_request("The provided model identifier is invalid.")
    return _BY_ID[found[1]]


def summaries(parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the models that fit the parameters of ListFoundationModels."""
    if unknown := sorted(parameters.keys() - _FILTERS.keys()):
        raise bad_request(f"Unknown parameter: {unknown[0]}")
    return [
        summary
        for summary in (model.summary() for model in _MODELS)
        if all(value in _listed(summary[_FILTERS[name]]) for name, value in parameters.items())
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
