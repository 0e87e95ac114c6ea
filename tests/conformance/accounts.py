"""How each entry of the provider registry is reached in the sandbox: a further provider is one more line here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.errors import Missing, ProviderError, Rejected, Unavailable
from app.providers.http import Http
from app.providers.protocol import Capabilities, Provider
from app.providers.registry import REGISTRY
from app.providers.wrappers import Observed, Retrying


@dataclass(frozen=True)
class Simulated:
    """One way to configure a provider, and what the suites have to know about it.

    kind              the registry's name of the provider
    simulator         the sandbox's name of who answers
    params            its configuration; {sandbox} stands for the sandbox's URL
    credential        the parameter that is the secret
    provider_model    a model that the simulator serves
    empty_file        what is raised for an empty file; None: it takes one
    expires_files     it deletes a file when its time has come
    deletes_silently  it does not say whether there was a file to delete
    tells_patience    how long to wait can be heard from what carries its files
    chat_errors       what the statuses of its chats mean where that is its own way
    missing_in_chat   what a chat raises for a file that is gone
    verb_errors       what the statuses of its other verbs mean where that is its own way, by operation
    names_batches     a batch has the name that it was submitted with
    """

    kind: str
    simulator: str
    form: str
    params: dict[str, str]
    credential: str = "api_key"
    provider_model: str = "gpt-4o"
    empty_file: type[ProviderError] | None = Rejected
    wrapped: bool = False
    expires_files: bool = True
    deletes_silently: bool = False
    tells_patience: bool = True
    chat_errors: Mapping[int, type[ProviderError]] = field(default_factory=dict)
    missing_in_chat: type[ProviderError] = Missing
    verb_errors: Mapping[str, Mapping[int, type[ProviderError]]] = field(default_factory=dict)
    names_batches: bool = True

    def __str__(self) -> str:
        return "-".join(filter(None, (self.kind, self.form, "wrapped" if self.wrapped else "")))

    @property
    def capabilities(self) -> Capabilities:
        """What the registry declares."""
        return REGISTRY[self.kind].capabilities

    def built(self, sandbox_url: str, http: Http, **others: Any) -> Provider:
        """The provider as the registry makes it, `others` replacing parameters; wrapped as deployments wrap it."""
        kind = REGISTRY[self.kind]
        params = {key: value.format(sandbox=sandbox_url) for key, value in self.params.items()} | others
        provider = kind.provider(kind.params.model_validate(params), http)
        return Retrying(Observed(provider, kind.name)) if self.wrapped else provider


def _openai(kind: str, **params: str) -> Simulated:
    params = {"api_base": "{sandbox}/openai/v1", "api_key": f"sk-{kind}", **params}
    return Simulated(kind, "openai", "", params)


def _azure(form: str, credential: str, **params: str) -> Simulated:
    params = {"api_base": "{sandbox}/azure", credential: f"azure {form}", **params}
    return Simulated("azure", "azure", form, params, credential)


def _anthropic(form: str, provider_model: str = "claude-sonnet-4-5", **params: str) -> Simulated:
    params = {"api_base": "{sandbox}/anthropic", "api_key": f"sk-ant-{form}", **params}
    # What is not there when a batch is made is its model, or the route.
    errors = {"create_batch": {404: Rejected}}
    return Simulated(
        "anthropic",
        "anthropic",
        form,
        params,
        provider_model=provider_model,
        verb_errors=errors,
        names_batches=False,
    )


def _gemini(form: str, **params: str) -> Simulated:
    params = {"api_base": "{sandbox}/gemini", "api_key": f"gemini-{form}", **params}
    # A file that is not there is forbidden (wire.md §4b), and so is a batch for all that is known.
    forbidden = ("retrieve_file", "read_file", "delete_file", "retrieve_batch")
    errors = {operation: {403: Missing} for operation in forbidden} | {"create_batch": {404: Rejected}}
    return Simulated("gemini", "gemini", form, params, provider_model="gemini-2.0-flash", verb_errors=errors)


def _vertex(form: str, **params: str) -> Simulated:
    params = {
        "api_base": "{sandbox}/vertex",
        "gcs_endpoint": "{sandbox}/gcs",
        "gcs_bucket": "filemux-sandbox",
        "vertex_project": "p",
        "vertex_access_token": f"token {form}",
        **params,
    }
    return Simulated(
        "vertex_ai",
        "vertex_ai",
        form,
        params,
        "vertex_access_token",
        "gemini-2.0-flash",
        empty_file=None,
        expires_files=False,
        tells_patience=False,
        # What is not there when a batch is made is its model.
        verb_errors={"create_batch": {404: Rejected}},
    )


def _bedrock(form: str, provider_model: str = "amazon.nova-lite-v1:0", **params: str) -> Simulated:
    params = {
        "aws_bedrock_runtime_endpoint": "{sandbox}/bedrock",
        "s3_endpoint_url": "{sandbox}/s3",
        "s3_bucket_name": "filemux-sandbox",
        "aws_access_key_id": f"AKIA{form}",
        "aws_secret_access_key": "secret",
        "aws_batch_role_arn": "arn:aws:iam::123456789012:role/batches",
        **params,
    }
    return Simulated(
        "bedrock",
        "bedrock",
        form,
        params,
        "aws_access_key_id",
        provider_model,
        empty_file=None,
        expires_files=False,
        deletes_silently=True,
        tells_patience=False,
        # 408 is a model's time-out; an object that a chat does not find is a validation error (wire.md §6a).
        chat_errors={408: Unavailable, 501: Unavailable},
        verb_errors={
            "create_batch": {404: Rejected, 408: Unavailable, 501: Unavailable},
            "retrieve_batch": {408: Unavailable, 501: Unavailable},
            "list_batches": {408: Unavailable, 501: Unavailable},
        },
        missing_in_chat=Rejected,
    )


# Some twice: as the registry makes them, and as deployments use them.
ACCOUNTS = [
    _openai("openai", organization="org-1", project="proj_1"),
    replace(_openai("openai"), wrapped=True),
    _azure("v1", "api_key"),
    _azure("v1-bearer", "azure_ad_token", api_version="latest"),
    _azure("dated", "api_key", api_version="2024-10-21", api_base="{sandbox}/azure/openai"),
    _azure("preview-bearer", "azure_ad_token", api_version="2025-04-01-preview", api_base="{sandbox}/azure/openai/v1/"),
    _anthropic("newest"),
    _anthropic("2023", api_version="2023-06-01", auth_header="x-api-key"),
    _gemini("v1"),
    _gemini("v1beta", api_version="v1beta"),
    _vertex("v1beta1"),
    _vertex("v1", api_version="v1", vertex_location="global"),
    _bedrock("NOVA"),
    *(_openai(kind) for kind in ("hosted_vllm", "groq", "mistral", "moonshot", "together_ai")),
    replace(_openai("hosted_vllm"), wrapped=True),
]
WITH_FILES = [account for account in ACCOUNTS if account.capabilities.stores_files]
WITH_BATCHES = [account for account in ACCOUNTS if account.capabilities.batch_input != "none"]
