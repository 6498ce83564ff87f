"""One line of status at the bottom of standard error, which gives way to whatever else is said there."""

from __future__ import annotations

import sys
from contextlib import suppress

_shown = False


def draw(text: str) -> None:
    """Write the line, in place of the one before."""
    global _shown  # noqa: PLW0603 - there is one terminal
    _shown = True
    _write(f"\r\x1b[K{text}")


def wipe() -> None:
    """Take the line away, if there is one."""
    global _shown  # noqa: PLW0603 - there is one terminal
    if _shown:
        _shown = False
        _write("\r\x1b[K")


def _write(text: str) -> None:
    """Write to standard error; one that is closed or gone is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()
