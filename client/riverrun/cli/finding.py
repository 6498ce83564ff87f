"""What one check of `doctor` has found, and what is to be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    Attributes:
        check: what was looked at.
        state: how it is.
        found: the actual state in words.
        advice: what to do; empty where nothing needs doing.
    """

    check: str
    state: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""
