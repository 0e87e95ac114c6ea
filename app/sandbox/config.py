"""The gateway configuration that uses the sandbox, as data: `filemux sandbox --print-config` prints it."""

from typing import Any

BUCKET = "filemux-sandbox"
# Model name → the model with its provider's name before it.
MODELS = {
    "gpt-4o-mini-openai": "openai/gpt-4o-mini",
    "gpt-4o-azure": "azure/gpt-4o",
    "claude-sonnet": "anthropic/claude-sonnet-4-5",
    "gemini-flash": "gemini/gemini-2.0-flash",
    "gemini-2.0-flash": "vertex_ai/gemini-2.0-flash",
    "nova-lite": "bedrock/us.amazon.nova-lite-v1:0",
}


def sandbox_configuration(base_url: str) -> dict[str, Any]:
    """Return the model list and files settings for the sandbox at `base_url` (no slash at its end)."""
    accounts = _accounts(base_url)
    return {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": model, **accounts[model.partition("/")[0]]}}
            for name, model in MODELS.items()
        ],
        "files_settings": [{"custom_llm_provider": provider, **params} for provider, params in accounts.items()],
    }


def _accounts(base_url: str) -> dict[str, dict[str, str | int]]:
    return {
        "openai": {"api_base": f"{base_url}/openai/v1", "api_key": "sk-sandbox-openai"},
        "azure": {"api_base": f"{base_url}/azure", "api_key": "sandbox-azure", "api_version": "2024-10-21"},
        "anthropic": {"api_base": f"{base_url}/anthropic", "api_key": "sk-ant-sandbox"},
        "gemini": {"api_base": f"{base_url}/gemini", "api_key": "sandbox-gemini"},
        "vertex_ai": {
            "api_base": f"{base_url}/vertex",
            "vertex_project": "sandbox",
            "vertex_location": "us-central1",
            "vertex_access_token": "sandbox-vertex",
            "gcs_bucket": BUCKET,
            "gcs_endpoint": f"{base_url}/gcs",
            # Callers may name any folder of it.
            "allowed_buckets": BUCKET,
        },
        "bedrock": {
            "aws_region_name": "us-east-1",
            "aws_access_key_id": "sandbox-bedrock",
            "aws_secret_access_key": "sandbox",
            "aws_bedrock_runtime_endpoint": f"{base_url}/bedrock",
            "s3_bucket_name": BUCKET,
            "s3_endpoint_url": f"{base_url}/s3",
            "allowed_buckets": BUCKET,
            "aws_batch_role_arn": "arn:aws:iam::123456789012:role/sandbox",
            # The simulated Bedrock has no quota.
            "batch_min_lines": 1,
        },
    }
