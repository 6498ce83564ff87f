"""Patterns of topics' names, matched in time that grows with the name alone: whoever sends one cannot stop the broker."""

from __future__ import annotations

from typing import Final

import re2

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.subscriptions import Matcher

# What a compiled pattern may take. The engine's own bound is eight times as much, for one pattern.
_MEMORY_BYTES: Final = 1 << 20


def compile_pattern(pattern: str) -> Matcher:
    """Return what tells whether a whole name matches a pattern in the syntax of RE2.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"topic_pattern {pattern[:80]!r} is no pattern: {_said(error)}; it is a regular expression "
            "in the syntax of RE2 that has to match the whole name, as orders-.* does",
        ) from None
    return lambda name: compiled.fullmatch(name) is not None


def _said(error: Exception) -> str:
    """Return what the engine says, which it says in bytes."""
    text = error.args[0] if error.args else b""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
