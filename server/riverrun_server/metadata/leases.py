"""Which leases an embedded store has, when each ends, and which keys go with it: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from riverrun_server.ports.metadata import Event, LeaseNotFound

# A lease is a row in memory; this many are a leak.
_LEASES_MAX: Final = 10_000


@dataclass(slots=True)
class _Held:
    ttl_s: float
    deadline: float
    keys: set[str] = field(default_factory=set)


class Leases:
    """Transitions of a lease: granted -> granted (kept alive) -> gone (its time is up, revoked)."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._of_key: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._held) >= _LEASES_MAX

    @property
    def next_deadline(self) -> float | None:
        """When the next lease ends."""
        return min((held.deadline for held in self._held.values()), default=None)

    def __contains__(self, lease_id: int) -> bool:
        """Return whether a lease goes on."""
        return lease_id in self._held

    def grant(self, lease_id: int, ttl_s: float, now: float) -> None:
        """Begin a lease."""
        assert lease_id > 0, lease_id
        assert lease_id not in self._held, lease_id
        self._held[lease_id] = _Held(ttl_s, now + ttl_s)

    def keep_alive(self, lease_id: int, now: float) -> float:
        """Let a lease begin anew; return its full time in seconds.

        Raises:
            LeaseNotFound: it has ended.
        """
        held = self._find(lease_id)
        held.deadline = now + held.ttl_s
        return held.ttl_s

    def keys(self, lease_id: int) -> list[str]:
        """Return the keys that go with a lease, in order.

        Raises:
            LeaseNotFound: it has ended.
        """
        return sorted(self._find(lease_id).keys)

    def end(self, lease_id: int) -> None:
        """Forget a lease whose keys have been deleted."""
        held = self._held.pop(lease_id)
        assert not held.keys, held

    def expired(self, now: float) -> list[int]:
        """Return the leases whose time is up."""
        return [lease_id for lease_id, held in self._held.items() if held.deadline <= now]

    def applied(self, events: tuple[Event, ...]) -> None:
        """Follow which lease each key goes with."""
        for event in events:
            before = self._of_key.pop(event.key, None)
            if before is not None:
                self._held[before].keys.discard(event.key)
            if event.entry is not None and event.entry.lease:
                self._of_key[event.key] = event.entry.lease
                self._held[event.entry.lease].keys.add(event.key)

    def _find(self, lease_id: int) -> _Held:
        held = self._held.get(lease_id)
        if held is None:
            raise LeaseNotFound(f"lease {lease_id} has expired or was revoked")
        return held
