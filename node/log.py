"""Structured logging to stderr: constant snake_case events, values as keys."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Lossy:
    """A stream that drops what cannot be written: a full disk under the log, or one closed, must not end the node."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of a text stream; never fails."""
        with suppress(OSError, ValueError):  # the second is how Python says that a stream is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As of a text stream; never fails."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure(level: str, *, as_json: bool) -> None:
    """Set up structlog for the whole process and silence chatty libraries."""
    for name in ("libp2p", "hypercorn", "hypercorn.error", "hypercorn.access", "multiaddr", "async_service"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )


def get() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
