"""The gateway configuration that uses the sandbox, as data: `filemux sandbox --print-config` prints it."""

from typing import Any


def sandbox_configuration(base_url: str) -> dict[str, Any]:
    """Return the model list and files settings for the sandbox at `base_url` (no slash at its end)."""
    openai = {"api_base": f"{base_url}/openai/v1", "api_key": "sk-sandbox-openai"}
    azure = {"api_base": f"{base_url}/azure", "api_key": "sandbox-azure", "api_version": "2024-10-21"}
    anthropic = {"api_base": f"{base_url}/anthropic", "api_key": "sk-ant-sandbox"}
    return {
        "model_list": [
            {"model_name": "gpt-4o-mini-openai", "litellm_params": {"model": "openai/gpt-4o-mini", **openai}},
            {"model_name": "gpt-4o-azure", "litellm_params": {"model": "azure/gpt-4o", **azure}},
            {"model_name": "claude-sonnet", "litellm_params": {"model": "anthropic/claude-sonnet-4-5", **anthropic}},
        ],
        "files_settings": [
            {"custom_llm_provider": "openai", **openai},
            {"custom_llm_provider": "azure", **azure},
            {"custom_llm_provider": "anthropic", **anthropic},
        ],
    }
