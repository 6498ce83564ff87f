"""What the library warns of, on standard error at once: a line each, whatever `--output` says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from riverrun.cli.exits import write_note


class _Notices(logging.Handler):
    """Writes records of the log for people."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        write_note("warning: " + " ".join(text.split()))


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the warnings of the library as long as this lasts."""
    log, notices = logging.getLogger("riverrun"), _Notices(logging.WARNING)
    log.addHandler(notices)
    try:
        yield
    finally:
        log.removeHandler(notices)
