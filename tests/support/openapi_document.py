"""The OpenAPI document as tests use it: what schemathesis generates requests from, and what answers are held to."""

import json
from pathlib import Path

import schemathesis

from tests.conftest import configuration

PATH = Path(__file__).parents[2] / "app" / "openapi.json"
DOCUMENT = json.loads(PATH.read_bytes())

# The model names whose accounts take files of every purpose, or keep none: `vllm` gets them inside its chats.
TARGETS = ["mini", "four", "other", "pair", "vllm"]

# Keys are ours to give (the tests' master key), so none are generated.
_CONFIG = {"generation": {"with-security-parameters": False}}


def configured_document():
    """The document with what only a configuration knows: the model names, and that uploads must name targets."""
    document = json.loads(PATH.read_bytes())
    schemas = document["components"]["schemas"]
    names = list(dict.fromkeys(entry["model_name"] for entry in configuration("")["model_list"]))
    schemas["ModelName"]["enum"] = names
    upload = schemas["FileUpload"]
    upload["properties"]["target_model_names"] = {"type": "array", "minItems": 1, "items": {"enum": TARGETS}}
    upload["required"].append("target_model_names")
    # A model name without files: else the files of other tests would be sent about.
    schemas["FileSync"]["properties"]["model"] = {"enum": ["vllm"]}
    # What else a form may name leads to one account instead; and a batch's file holds lines.
    for name in list(upload["properties"]):
        if name in ("model", "provider", "custom_llm_provider") or name.startswith("storage_config"):
            del upload["properties"][name]
    upload["properties"]["purpose"] = {"enum": ["fine-tune", "user_data"]}
    # Query and header name targets only where the form does not, so wrong ones may be no error.
    del document["paths"]["/files"]["post"]["parameters"]
    # Where no account is named, a list goes on behind one of the gateway's own ids.
    for path, kind in (("/files", "FileId"), ("/batches", "BatchId")):
        [after] = [one for one in document["paths"][path]["get"]["parameters"] if one.get("name") == "after"]
        after["schema"] = {"$ref": f"#/components/schemas/{kind}"}
    return document


SCHEMA = schemathesis.openapi.from_dict(configured_document(), config=schemathesis.Config.from_dict(_CONFIG))
_OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (result.ok() for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
}


def described(operation_id, response):
    """Hold an answer of `requests` to the document; the answer."""
    operation = _OPERATIONS[operation_id]
    assert str(response.status_code) in operation.definition.raw["responses"], response.text
    operation.validate_response(response)
    assert_request_id(response.headers)
    if not response.ok:
        assert_envelope(response.headers["content-type"], response.json())
    return response


def assert_request_id(headers):
    """Every answer has one."""
    assert headers["x-request-id"].startswith("req_")


def assert_envelope(content_type, body):
    """Every error has the one shape."""
    assert content_type == "application/json"
    assert {"error"} <= set(body) <= {"error", "filemux"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
