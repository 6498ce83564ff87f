"""Durations and sizes as people write them: 7d, 90s, 512MiB, or a plain number."""

from __future__ import annotations

import re

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
# 18 digits hold every 64-bit value that a unit can still multiply, and bound the work of int().
_NUMBER = re.compile(r"(-?[0-9]{1,18})([A-Za-z]*)", re.ASCII)
_LARGEST = (1 << 63) - 1


def parse_duration_ms(text: str) -> int:
    """Return milliseconds; a plain number is milliseconds.

    Raises:
        ValueError: it is something else; the text says what was expected.
    """
    return _parse(text, _MS, "ms", "a number of milliseconds, or one with a unit")


def parse_size_bytes(text: str) -> int:
    """Return bytes; a plain number is bytes.

    Raises:
        ValueError: it is something else; the text says what was expected.
    """
    return _parse(text, _BYTES, "B", "a number of bytes, or one with a unit")


def _parse(text: str, units: dict[str, int], default_unit: str, expected: str) -> int:
    match = _NUMBER.fullmatch(text)
    factor = units.get(match[2] or default_unit) if match else None
    if match is None or factor is None:
        raise ValueError(f"{expected} ({', '.join(units)})")
    value = int(match[1]) * factor
    if abs(value) > _LARGEST:
        raise ValueError(f"at most {_LARGEST}")
    return value
