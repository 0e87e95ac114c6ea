"""What the pages share: their configuration, their batches' lines, and what is to come of them."""

import json

from app.sandbox.config import BUCKET, sandbox_configuration

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def configuration(url):
    """The sandbox's accounts under the model names of the pages."""
    accounts = sandbox_configuration(url)
    sandbox = {entry["model_name"]: entry["litellm_params"] for entry in accounts["model_list"]}

    def entry(name, like, model, **params):
        return {"model_name": name, "litellm_params": {**sandbox[like], "model": model, **params}}

    accounts["model_list"] += [
        entry("gpt-4o-litellm", "gpt-4o-mini-openai", "openai/gpt-4o", api_key="sk-litellm"),
        entry("gpt-4o-free", "gpt-4o-mini-openai", "openai/gpt-4o", api_key="sk-free"),
        entry("gpt-4o-account1", "gpt-4o-mini-openai", "openai/gpt-4o", api_key="sk-account1"),
        entry("gpt-4.1-openai", "gpt-4o-mini-openai", "openai/gpt-4.1"),
        {
            **entry("gpt-4o-batch", "gpt-4o-azure", "azure/gpt-4o-mini", api_key="general"),
            "model_info": {"mode": "batch"},
        },
        {
            **entry("gpt-4o-batch", "gpt-4o-azure", "azure/gpt-4o", api_key="special"),
            "model_info": {"mode": "batch"},
        },
    ]
    return accounts


def jsonl(model, *texts, **body):
    """A batch's lines as the pages write them: no line end after the last."""
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": CHAT,
            "body": {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 100, **body},
        }
        for number, text in enumerate(texts, 1)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def answers(output):
    """custom_id → what the model said, of an output file's text; each line is one of OpenAI's."""
    lines = [json.loads(line) for line in output.strip().split("\n")]
    for line in lines:
        assert {"id", "custom_id", "response", "error"} <= set(line)
        assert line["response"]["status_code"] == 200
    return {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}


def s3(prefix):
    """Bifrost's storage_config."""
    return {"s3": {"bucket": BUCKET, "region": "us-west-2", "prefix": prefix}}
