"""Cuts names and texts from clients to the bytes that they may take of a line in the log.

What counts is the length as JSON writes it, in ASCII: twelve bytes for an emoji. Console lines are
shorter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

_ELLIPSIS: Final = "…"


def cut(text: str, max_bytes: int) -> str:
    """Return a text that takes at most so many bytes of a line, and a mark where it was cut."""
    head = text[:max_bytes]  # a character is a byte at least: no need to measure a megabyte
    if len(head) == len(text) and _bytes_of(text) <= max_bytes:
        return text
    left = max_bytes - _bytes_of(_ELLIPSIS)
    for length, char in enumerate(head):
        left -= _bytes_of(char)
        if left < 0:
            return head[:length] + _ELLIPSIS
    return head + _ELLIPSIS


def cut_list(names: Iterable[str], each_bytes: int, all_bytes: int) -> list[str]:
    """Return the first names, each cut, as many as fit; the first one always does."""
    out: list[str] = []
    left = all_bytes
    for name in names:
        shown = cut(name, each_bytes)
        left -= _bytes_of(shown)
        if left < 0 and out:
            break
        out.append(shown)
    return out


def _bytes_of(text: str) -> int:
    return len(json.dumps(text)) - 2  # without the quotes
