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
        if getattr(record, "riverrun_about", "") == "from_":
            return  # `consume` says it itself, in the words of its options
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        word = "warning" if record.levelno >= logging.WARNING else "note"
        write_note(f"{word}: " + " ".join(text.split()))


@contextmanager
def warnings_shown(*, waiting_too: bool = True) -> Iterator[None]:
    """Show the warnings of the library as long as this lasts, and that it waits for a broker."""
    log, notices = logging.getLogger("riverrun"), _Notices(logging.WARNING)
    waiting = logging.getLogger("riverrun._net.channel")
    log.addHandler(notices)
    if waiting_too:
        # Nobody should wonder what takes so long, nor who reads the log of a script that hangs.
        notices.setLevel(logging.INFO)
        waiting.setLevel(logging.INFO)
    try:
        yield
    finally:
        waiting.setLevel(logging.NOTSET)
        log.removeHandler(notices)
