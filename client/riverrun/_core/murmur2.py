"""The key hash of Kafka's Java clients, murmur2, bit for bit.

In pure Python it costs microseconds where CRC-32 costs a twentieth of one; keys that come again are
looked up instead of computed. docs/adr/0012 has why it is not a C extension.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

_SEED = 0x9747_B28C
_MULTIPLIER = 0x5BD1_E995
_MASK = 0xFFFF_FFFF
_POSITIVE = 0x7FFF_FFFF

_REMEMBERED_KEYS = 16_384
_REMEMBERED_KEY_BYTES = 256

_WORDS = [Struct(f"<{count}I").unpack_from for count in range(_REMEMBERED_KEY_BYTES // 4 + 1)]


def murmur2(data: bytes) -> int:
    """Return the hash, unsigned; Java's is the same 32 bits with a sign."""
    length = len(data)
    count = length >> 2
    unpack = _WORDS[count] if count < len(_WORDS) else Struct(f"<{count}I").unpack_from
    state = _SEED ^ length
    for word in unpack(data):
        mixed = word * _MULTIPLIER & _MASK
        state = (state * _MULTIPLIER ^ (mixed ^ mixed >> 24) * _MULTIPLIER) & _MASK
    if rest := length & 3:
        state = (state ^ int.from_bytes(data[-rest:], "little")) * _MULTIPLIER & _MASK
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK
    return state ^ state >> 15


@lru_cache(_REMEMBERED_KEYS)
def _remembered(key: bytes) -> int:
    return murmur2(key) & _POSITIVE


def murmur2_of_key(key: bytes) -> int:
    """Return what Kafka takes modulo partitions: the hash without its sign bit."""
    if len(key) <= _REMEMBERED_KEY_BYTES:
        return _remembered(key)
    return murmur2(key) & _POSITIVE
