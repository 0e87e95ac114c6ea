"""Structured logs: JSON lines on stderr. Never a body, a key or a file name."""

from __future__ import annotations

import logging
import sys

import orjson
import stamina.instrumentation
import structlog


def configure(level: int = logging.INFO) -> None:
    """Set up logging for this process, from this level on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_dumped),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # Its hook logs the arguments of what is retried, a file's name among them; app.providers.wrappers counts instead.
    stamina.instrumentation.set_on_retry_hooks([])


def _dumped(event: structlog.typing.EventDict, **_: object) -> bytes:
    return orjson.dumps(event, default=repr)
