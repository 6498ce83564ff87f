"""Sets up the broker's log: console lines on a terminal, JSON elsewhere, always on standard error.

Standard output belongs to data and to the line that says `ready`. Events are fixed short phrases,
what varies stands in keys, so that lines can be searched and counted.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# What libraries say below this is of no use to an operator.
_LIBRARIES: Final = logging.WARNING


def configure(log_format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log line of this process, libraries' included, to one place in one form.

    Args:
        log_format: console, json, or auto, which is console on a terminal.
        level: debug, info, warning or error.
        stream: standard error unless given.
    """
    out = sys.stderr if stream is None else stream
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks come without the values of local variables: those may be records or secrets.
    renderer: list[structlog.typing.Processor] = (
        [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    lines = _Unbreakable(out)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,  # a log line is rare here, a stale logger a riddle
    )
    handler = logging.StreamHandler(lines)
    handler.addFilter(_hung_up)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LIBRARIES, _LEVELS[level]))
    logging.captureWarnings(capture=True)


def _hung_up(record: logging.LogRecord) -> bool:
    """Leave out what gRPC says of a client that is gone before its answer was sent: that is no event.

    It logs an error with a traceback for each, so a client could fill the disk with them.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


class _Unbreakable:
    """A text stream that cannot fail: a log reader that went away must not stop a broker."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or lose the text."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or lose what was written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _printable(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters: a name in a library's message must not draw on the terminal.

    The renderers escape values by themselves, and JSON the event too.
    """
    text = event.get("event")
    if isinstance(text, str) and not text.isprintable():
        event["event"] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return event
