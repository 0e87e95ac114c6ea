"""What must fit together in a Converse request: roles, files, tools and their results, what the model takes.

Every rule is a function that raises ValueError with the vendor's words, as Bedrock's users report them, for the 400
that they come in. What thinking demands is in bedrock_thinking.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from app.sandbox.bedrock_blocks import AudioBlock, DocumentBlock, ImageBlock, Media, Message, VideoBlock
from app.sandbox.bedrock_catalog import Model
from app.sandbox.bedrock_request import ConverseRequest
from app.sandbox.bedrock_thinking import check_thinking

_MIB = 1024**2
# wire.md §6c. 3.75 MiB are 5 MiB in base64, so binary units are meant; of films the 25 MB are third-party [U].
_MAX_BYTES = {ImageBlock: 3.75 * _MIB, DocumentBlock: 4.5 * _MIB, VideoBlock: 25 * _MIB, AudioBlock: 25 * _MIB}
_MAX_DOCUMENTS = 5
_MAX_IMAGES = 20
# As it is documented: underscores are said to pass, too (https://github.com/vercel/ai/pull/20366).
_DOCUMENT_NAME = re.compile(r"(?!.*  )[A-Za-z0-9 ()\[\]-]+")
# What a message of a role may hold.
_BLOCKS = {
    "user": frozenset({"text", "image", "document", "video", "audio", "toolResult", "cachePoint"}),
    "assistant": frozenset({"text", "toolUse", "cachePoint", "reasoningContent"}),
    "system": frozenset({"text", "cachePoint"}),
}


def check(request: ConverseRequest, model: Model) -> None:
    """Refuse what is well-formed but makes no sense, or not to `model`."""
    _check_roles(request.messages)
    for number, message in enumerate(request.messages):
        _check_blocks(f"messages.{number}", message)
    _check_results(request.messages, model)
    _check_documents(request.messages)
    _check_media(request.messages, model)
    _check_tools(request, model)
    _check_inference(request, model)
    check_thinking(request, model)


def _check_roles(messages: list[Message]) -> None:
    if not messages or messages[0].role != "user":
        raise ValueError(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )
    # Instructions in between are left out: where they may stand is unverified (wire.md §6d).
    roles = [message.role for message in messages if message.role != "system"]
    # Some models are said to go on writing a last message of the assistant; this is the stricter reading.
    if roles[-1] != "user":
        raise ValueError(
            "A conversation must end with a user message. Try again with a conversation that ends with a user message."
        )
    if any(role == following for role, following in pairwise(roles)):
        raise ValueError(
            "A conversation must alternate between user and assistant roles. "
            "Make sure the conversation alternates between user and assistant roles and try again."
        )


def _check_blocks(where: str, message: Message) -> None:
    if not message.content:
        raise ValueError(
            f"The content field in the Message object at {where} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for position, block in enumerate(message.content):
        if block.member not in _BLOCKS[message.role]:
            raise ValueError(
                f"A message of the role {message.role} can't have {block.member} at {where}.content.{position}."
            )
        # Within the result of a tool a text may be blank (https://github.com/NousResearch/hermes-agent/issues/55092).
        if block.text is not None and not block.text.strip():
            raise ValueError(
                f"The text field in the ContentBlock object at {where}.content.{position} is blank. "
                "Add text to the text field, and try again."
            )
        if block.tool_result and block.tool_result.status == "error" and not block.tool_result.content:
            result = f"{where}.content.{position}.toolResult"
            raise ValueError(f"The content field at {result} cannot be empty when status value is error.")
    if any(block.document for block in message.content) and not message.texts:
        raise ValueError("A text block must be included when using documents. Add a text block and retry your request.")


def _check_results(messages: list[Message], model: Model) -> None:
    """Refuse calls without results, and results without calls."""
    pending: Counter[str] = Counter()
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        where = f"messages.{number}.content"
        results = Counter(result.tool_use_id for result in message.results)
        if missing := pending - results:
            raise ValueError(f"Expected toolResult blocks at {where} for the following Ids: {', '.join(missing)}")
        if results - pending:
            raise ValueError(
                f"The number of toolResult blocks at {where} exceeds the number of toolUse blocks of previous turn."
            )
        first = [block.tool_result for block in message.content[: results.total()]]
        if model.is_claude and None in first:
            raise ValueError(
                f"The model returned the following errors: messages.{number}: Did not find {first.count(None)} "
                "tool_result block(s) at the beginning of this message. Messages following tool_use blocks must begin "
                "with a matching number of tool_result blocks."
            )
        pending = Counter(message.calls)
        if any(count > 1 for count in pending.values()):
            raise ValueError(f"The toolUseIds at {where} are not unique.")


def _media(messages: list[Message]) -> Iterator[Media]:
    return (piece.media for message in messages for piece in message.pieces() if piece.media)


def _check_documents(messages: list[Message]) -> None:
    documents = [block for block in _media(messages) if isinstance(block, DocumentBlock)]
    for document in documents:
        if not _DOCUMENT_NAME.fullmatch(document.name):
            raise ValueError(
                "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, "
                "parentheses, and square brackets. The name can't contain more than one consecutive whitespace "
                "character. Check that the file name conforms to these restrictions and retry your request."
            )
        # Without citations there are only two kinds of sources (https://github.com/strands-agents/harness-sdk/pull/3582).
        cites = document.citations is not None and document.citations.enabled
        if document.source.written is not None and not cites:
            raise ValueError("DocumentSource object must set one of the following keys: bytes, s3Location")
    if len({document.name for document in documents}) < len(documents):
        raise ValueError("Messages can't contain duplicate document names. Rename the document and retry your request.")


def _check_media(messages: list[Message], model: Model) -> None:
    """Refuse files that are too many or too large, or that the model does not read.

    They are counted over the whole request: the service model says so of a message, Bedrock's error of a request, and
    so do its users (https://github.com/aaif-goose/goose/issues/1267, https://github.com/cline/cline/issues/1844).
    """
    kinds: Counter[type[Media]] = Counter()
    for block in _media(messages):
        kinds[type(block)] += 1
        kind = type(block).__name__.removesuffix("Block").lower()
        if kind not in model.media:
            raise ValueError(f"This model doesn't support the {kind} content block that you provided.")
        if block.source.s3_location and not model.reads_s3:
            raise ValueError(f"This model doesn't support the s3Location source of the {kind} that you provided.")
        if len(block.source.data or b"") > _MAX_BYTES[type(block)]:
            raise ValueError(f"The {kind} exceeds the maximum of {_MAX_BYTES[type(block)] / _MIB} MB.")
    if kinds[DocumentBlock] > _MAX_DOCUMENTS:
        raise ValueError(
            f"You can't include more than {_MAX_DOCUMENTS} documents in a request. "
            "Reduce the number of documents and retry your request."
        )
    if kinds[ImageBlock] > _MAX_IMAGES:
        raise ValueError(
            "The model returned the following errors: too many images and documents: "
            f"{kinds[ImageBlock]} + {kinds[DocumentBlock]} > {_MAX_IMAGES}"
        )


def _check_tools(request: ConverseRequest, model: Model) -> None:
    results = [result for message in request.messages for result in message.results]
    if request.tool_config is None and (results or any(message.calls for message in request.messages)):
        raise ValueError("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
    if any(result.status for result in results) and not model.takes_result_status:
        raise ValueError("This model doesn't support the status field. Remove status and try again.")
    names: list[str] = []
    for position, spec in enumerate(request.tools):
        where = f"toolConfig.tools.{position}"
        if spec.name in names:
            raise ValueError(f"The tool {spec.name} is already defined at toolConfig.tools.{names.index(spec.name)}.")
        if (spec.input_schema.data or {}).get("type") != "object":
            raise ValueError(
                f"The value at {where}.toolSpec.inputSchema.json.type must be one of the following: object."
            )
        names.append(spec.name)
    choice = request.tool_choice
    if choice is None:
        return
    if choice.member not in model.tool_choices:
        field = f"toolConfig.toolChoice.{choice.member}"
        raise ValueError(f"This model doesn't support the {field} field. Remove {field} and try again.")
    if choice.tool and choice.tool.name not in names:
        raise ValueError(f"The tool {choice.tool.name} of toolConfig.toolChoice is not defined in toolConfig.tools.")


def _check_inference(request: ConverseRequest, model: Model) -> None:
    config = request.inference_config
    if (config.max_tokens or 0) > model.max_tokens:
        raise ValueError(
            f"The maximum tokens you requested exceeds the model limit of {model.max_tokens}. "
            f"Try again with a maximum tokens value that is lower than {model.max_tokens}."
        )
    if len(config.stop_sequences) > model.max_stop_sequences:
        raise ValueError(f"The model takes at most {model.max_stop_sequences} stopSequences.")
    if model.is_claude and config.temperature is not None and config.top_p is not None:
        raise ValueError(
            "The model returned the following errors: `temperature` and `top_p` cannot both be specified for this "
            "model. Please use only one."
        )
    if extraneous := sorted(request.additional_model_request_fields.model_fields_set - model.fields):
        raise ValueError(
            f"The model returned the following errors: Malformed input request: #: extraneous key [{extraneous[0]}] "
            "is not permitted, please reformat your input and try again."
        )
