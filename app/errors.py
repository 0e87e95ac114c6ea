"""Every error that a caller can see, and the only writer of an OpenAI error body.

GatewayError
├── BadRequest            400  the request is wrong: says what, where and what would be right
├── Unauthenticated       401  no key, or none that is valid
├── Forbidden             403  the key's role or allow-list does not permit it
├── NotFound              404  no such file (NoSuchFile), batch, route; another team's is the same
├── MethodNotAllowed      405
├── TooLarge              413  over a limit of the gateway or of a provider
├── RangeNotSatisfiable   416  no byte of the range exists
├── Overloaded            503  the gateway cannot serve now; carries retry-after
├── StorageFull           507  the spool's disk is full
├── Internal              500  a bug of ours
└── ProviderError              what an account answered, one class per meaning
    ├── Missing           404  the provider holds no such file          (delete: success)
    ├── Rejected          400  the provider refuses the request itself
    ├── ProviderTooLarge  413  over the provider's limit
    ├── Unsupported       400  the provider has no such operation
    ├── Unauthorized      502  the provider refuses *our* credentials; never the caller's 401
    ├── QuotaExceeded     429  the account's quota is used up; waiting does not help
    ├── RateLimited       429  retryable; knows retry_after_seconds
    └── Unavailable       503  retryable: 5xx, a dropped connection, a time-out
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import orjson

# The openai SDK ignores a Retry-After above two minutes (openai-python 3.52, _base_client).
MAX_RETRY_AFTER_SECONDS = 120.0


class GatewayError(Exception):
    """An answer to the caller in OpenAI's error envelope.

    `param` names the offending field or the position in the payload; `code` is a stable word for programs;
    `facts` becomes the `filemux` object beside the error.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "invalid_request_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        # What is said may be written down, and PostgreSQL has no place for NUL.
        self.message = message.replace("\0", "\ufffd")
        self.param = param and param.replace("\0", "\ufffd")
        self.code = code or self.default_code
        self.retry_after_seconds = retry_after_seconds
        self.facts = facts

    def body(self) -> bytes:
        """The answer's JSON: `{"error": {message, type, param, code}}` and, if any, `filemux`."""
        content: dict[str, Any] = {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        }
        if self.facts:
            content["filemux"] = self.facts
        return orjson.dumps(content)

    def headers(self) -> dict[str, str]:
        """Headers that belong to this error: its type and, where waiting helps, `retry-after`."""
        headers = {"content-type": "application/json"}
        if self.retry_after_seconds is not None:
            seconds = min(self.retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
            headers["retry-after"] = str(max(1, round(seconds)))
        return headers


class BadRequest(GatewayError):
    """The request is wrong."""

    status = 400


class Unauthenticated(GatewayError):
    """No valid key came with the request."""

    status = 401
    default_code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        """Adds the challenge that RFC 9110 §11.6.1 asks of a 401."""
        return {**super().headers(), "www-authenticate": "Bearer"}


class Forbidden(GatewayError):
    """The key is valid but may not do this."""

    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(GatewayError):
    """It does not exist, or not for this caller."""

    status = 404
    default_code = "not_found"


class NoSuchFile(NotFound):
    """There is no file of this id, or none for this caller."""

    def __init__(self, file_id: str, param: str = "id") -> None:
        super().__init__(f"No such File object: {file_id[:100]}", param=param)


class NoSuchBatch(NotFound):
    """There is no batch of this id, or none for this caller."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"No such Batch object: {batch_id[:100]}", param="id")


class MethodNotAllowed(GatewayError):
    """The path exists, the verb does not."""

    status = 405
    default_code = "method_not_allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not possible here; these are: {self.allowed}")

    def headers(self) -> dict[str, str]:
        """Adds what RFC 9110 §15.5.6 asks of a 405."""
        return {**super().headers(), "allow": self.allowed}


class TooLarge(GatewayError):
    """Over a size limit of the gateway."""

    status = 413
    default_code = "file_too_large"


class RangeNotSatisfiable(GatewayError):
    """The range that was asked for begins behind the file's end."""

    status = 416
    default_code = "range_not_satisfiable"

    def __init__(self, message: str, size_bytes: int) -> None:
        super().__init__(message, param="range")
        self.size_bytes = size_bytes

    def headers(self) -> dict[str, str]:
        """Adds the size, as RFC 9110 §15.5.17 asks."""
        return {**super().headers(), "content-range": f"bytes */{self.size_bytes}"}


class Overloaded(GatewayError):
    """The gateway, or what it depends on, cannot serve this now."""

    status = 503
    type = "server_error"
    default_code = "unavailable"


class StorageFull(GatewayError):
    """The disk under the spool is full."""

    status = 507
    type = "server_error"
    default_code = "storage_full"


class Internal(GatewayError):
    """A bug of ours; the log has the trace under the request's id."""

    type = "server_error"
    default_code = "internal_error"


class ProviderError(GatewayError):
    """What an account answered. `retryable` asks whether the same call may succeed later."""

    type = "provider_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, outcome_unknown: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        # The request had left when the connection broke, here or behind a proxy: the provider may have acted on it.
        self.outcome_unknown = outcome_unknown


class Missing(ProviderError):
    """The provider holds no such file. A delete that meets this is done."""

    status = 404
    type = "invalid_request_error"
    default_code = "provider_file_missing"


class Rejected(ProviderError):
    """The provider refuses the request itself; its own message is passed on."""

    status = 400
    type = "invalid_request_error"


class ProviderTooLarge(ProviderError):
    """Over the provider's size limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "file_too_large"


class Unsupported(ProviderError):
    """The provider has no such operation."""

    status = 400
    type = "invalid_request_error"
    default_code = "unsupported_by_provider"


class Unauthorized(ProviderError):
    """The provider refuses our credentials for the account."""

    status = 502
    default_code = "provider_credentials_refused"


class QuotaExceeded(ProviderError):
    """The account's quota or credit is used up."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"

    def headers(self) -> dict[str, str]:
        """Tells the SDK not to try again (openai-python honours x-should-retry)."""
        return {**super().headers(), "x-should-retry": "false"}


class RateLimited(ProviderError):
    """The account is over its rate for now."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "provider_rate_limited"
    retryable = True


class Unavailable(ProviderError):
    """The provider answered 5xx, dropped the connection, or did not answer in time."""

    status = 503
    type = "server_error"
    default_code = "provider_unavailable"
    retryable = True
