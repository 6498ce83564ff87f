"""Lengths as protobuf writes them, where records are joined without it."""

from __future__ import annotations

import functools


@functools.lru_cache(4096)
def varint(value: int) -> bytes:
    """Return a number as protobuf writes a length."""
    assert value >= 0, value
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
