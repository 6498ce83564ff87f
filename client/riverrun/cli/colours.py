"""Colours for people: on a terminal only, and never where NO_COLOR asks for none."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {"red": "31", "green": "32", "yellow": "33", "bold red": "1;31"}
STATES = {
    **dict.fromkeys(("ok", "elected"), "green"),
    **dict.fromkeys(("warning", "draining", "unseen", "under-replicated"), "yellow"),
    **dict.fromkeys(("failed", "fenced", "offline", "under min ISR"), "bold red"),
}
"""How states are coloured, in words that rich knows too."""


def coloured(text: str, colour: str, stream: TextIO | None) -> str:
    """Put text into a colour if a stream shows any; see https://no-color.org."""
    if not shows_colours(stream):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def shows_colours(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that may be coloured; one that is closed or gone is none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream is not None and not stream.closed and stream.isatty()
