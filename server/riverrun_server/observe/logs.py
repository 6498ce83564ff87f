"""Sets up the broker's log: console lines on a terminal, JSON elsewhere, always on standard error.

Standard output belongs to data and to the line that says `ready`. Events are fixed short phrases,
what varies stands in keys, so that lines can be searched and counted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from riverrun_server.observe.patient_stream import PatientStream

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
                colors=out.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                sort_keys=False,  # what matters most comes first
            ),
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )

    def lost(count: int) -> str:
        event: Any = {"event": "log lines were lost, for nobody read them", "lines": count}
        for process in (*shared, *renderer):
            event = process(None, "warning", event)
        return f"{event}\n"

    lines = PatientStream(out, lost)
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


def _printable(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters: no name in a message or a value may draw on the terminal.

    JSON escapes them by itself; the console's renderer does so only where a value has spaces.
    """
    for key, text in event.items():
        if isinstance(text, str) and key != "exception" and not text.isprintable():
            event[key] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return event
