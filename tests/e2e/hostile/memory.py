"""The most memory that a broker's clients can make it take, from its limits; docs/reliability.md explains it."""

from __future__ import annotations

from tests.e2e.hostile.broker_under_attack import MIB, Limits

_KIB = 1 << 10
# Measured: the process with its store open and 32 slots; a connection; a stream or call with its tasks.
_EMPTY = 110 * MIB
_CONNECTION = 25 * _KIB
_CALL = 60 * _KIB
# RocksDB: memtables and the cache of blocks.
_STORE = (256 + 16) * MIB
# A batch being taken apart: the largest expanded, as messages. Two threads, and the loop.
_PARSED = 3 * 110 * MIB
# What came within the second in which a slow request is not slow yet.
_BURST = 256 * MIB
# The allocator keeps what it was given in pieces that do not fit.
_FRAGMENTS = 1.25


def bound_bytes(limits: Limits, connections: int) -> int:
    """Return how much memory the broker takes at the most."""
    slow = limits.in_flight_bytes  # slow requests: a share of as many bytes as may be in flight
    counted = (
        _EMPTY
        + _STORE
        + limits.hot_tail_bytes
        + 2 * limits.in_flight_bytes  # as it came, and as it is parsed
        + slow
        + int(1.5 * limits.delivery_bytes)  # the budget, and one read ahead that is not asked for
        + connections * _CONNECTION
        + (limits.streams + limits.calls) * _CALL
        + _PARSED
        + _BURST
    )
    return int(counted * _FRAGMENTS)
