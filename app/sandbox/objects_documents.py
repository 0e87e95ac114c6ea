"""The XML that the buckets' XML APIs speak: documents, errors, and what a client sends."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.sandbox.objects import ObjectError
from app.sandbox.objects_parts import NamedPart

# A tag, and the text or the elements in it.
Element = tuple[str, "str | Sequence[Element]"]

# Status and message of what a bucket refuses. The codes are to be relied on, the messages are not.
ERRORS: dict[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied"),
    "AuthenticationRequired": (401, "Authentication required."),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what we received."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag.",
    ),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "The request is not valid."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
    ),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "OperationAborted": (409, "A conflicting conditional operation is currently in progress against this resource."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to in time."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SlowDown": (503, "Please reduce your request rate."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}
CODES: dict[int, str] = {
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "OperationAborted",
    411: "MissingContentLength",
    412: "PreconditionFailed",
    413: "EntityTooLarge",
    416: "InvalidRange",
    429: "SlowDown",
    501: "NotImplemented",
    503: "SlowDown",
}


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Part(_Shape):
    number: Annotated[int, Field(alias="PartNumber", ge=1, le=10_000)]
    etag: Annotated[str, Field(alias="ETag")]
    crc32: Annotated[str | None, Field(alias="ChecksumCRC32")] = None
    crc32c: Annotated[str | None, Field(alias="ChecksumCRC32C")] = None
    sha256: Annotated[str | None, Field(alias="ChecksumSHA256")] = None

    def named(self) -> NamedPart:
        return NamedPart(number=self.number, etag=self.etag, checksums=self.model_dump(exclude={"number", "etag"}))


class _Object(_Shape):
    key: Annotated[str, Field(alias="Key", min_length=1)]


_PARTS = TypeAdapter(list[_Part])
_OBJECTS = TypeAdapter(Annotated[list[_Object], Field(min_length=1, max_length=1000)])


def document(element: Element, namespace: str = "") -> bytes:
    """Return `element` as a document."""
    root = _built(element)
    if namespace:
        root.set("xmlns", namespace)
    text: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text


def named_parts(data: bytes) -> list[NamedPart]:
    """Return the parts of a CompleteMultipartUpload; raises MalformedXML."""
    try:
        parts = _PARTS.validate_python(_children(data, "CompleteMultipartUpload").get("Part", []))
    except ValidationError as error:
        raise ObjectError("MalformedXML") from error
    return [part.named() for part in parts]


def keys_to_delete(data: bytes) -> tuple[list[str], bool]:
    """Return the keys of a Delete, and whether only errors are to be told; raises MalformedXML."""
    children = _children(data, "Delete")
    try:
        objects = _OBJECTS.validate_python(children.get("Object", []))
    except ValidationError as error:
        raise ObjectError("MalformedXML") from error
    return [one.key for one in objects], children.get("Quiet", []) == ["true"]


def _children(data: bytes, tag: str) -> Mapping[str, list[str | dict[str, str]]]:
    """Return the root's children by their tags: an element's text, or its own children's; namespaces are left out."""
    try:
        root = ElementTree.fromstring(data)  # noqa: S314  expat stops entities that expand without end
    except ElementTree.ParseError as error:
        raise ObjectError("MalformedXML") from error
    if _local(root.tag) != tag:
        raise ObjectError("MalformedXML")
    children: dict[str, list[str | dict[str, str]]] = {}
    for child in root:
        value = {_local(leaf.tag): leaf.text or "" for leaf in child} or child.text or ""
        children.setdefault(_local(child.tag), []).append(value)
    return children


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _built(element: Element) -> ElementTree.Element:
    tag, content = element
    built = ElementTree.Element(tag)
    if isinstance(content, str):
        built.text = content
    else:
        built.extend(map(_built, content))
    return built
