"""What the fake broker is told to do wrong, and when."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable

from tests.client.fake_log import FakeRefusal


class Fault(enum.Enum):
    """Faults of an append, and of a delivery."""

    DROP_BEFORE = "break the stream, nothing appended"
    LOSE_ACK = "append, then break the stream"
    REFUSE_ONCE = "refuse for now, definitely"
    UNKNOWN_BEFORE = "answer with unknown outcome, nothing appended"
    UNKNOWN_AFTER = "append, then answer with unknown outcome"
    GOING_AWAY = "announce the end of the stream, then end it in order"
    END_QUIETLY = "end the stream with OK and no word"


DEFINITE = FakeRefusal("STORAGE_STALLED", retry_safe=True, retry_after_s=0.001)
UNKNOWN = FakeRefusal("REQUEST_TIMED_OUT", known=False)


class Plan:
    """Which fault comes at which append or delivery, counted over the broker's life."""

    def __init__(
        self,
        appends: dict[int, Fault | FakeRefusal] | None = None,
        deliveries: dict[int, Fault | FakeRefusal] | None = None,
    ) -> None:
        self.appends = appends or {}
        self.deliveries = deliveries or {}
        self.append_number = 0
        self.delivery_number = 0
        self.happened: list[Fault | FakeRefusal] = []

    @classmethod
    def seeded(cls, seed: int, count: int, *, kinds: Iterable[Fault]) -> Plan:
        """Scatter faults over the first `count` appends and deliveries."""
        rng, kinds = random.Random(seed), list(kinds)
        faulty = rng.sample(range(count), rng.randrange(1, max(2, count // 3)))
        cut = rng.sample(range(count), rng.randrange(1, max(2, count // 3)))
        return cls(
            {number: rng.choice(kinds) for number in faulty},
            {number: rng.choice([Fault.DROP_BEFORE, Fault.GOING_AWAY]) for number in cut},
        )

    def at_append(self) -> Fault | FakeRefusal | None:
        fault = self.appends.get(self.append_number)
        self.append_number += 1
        return self._noted(fault)

    def at_delivery(self) -> Fault | FakeRefusal | None:
        fault = self.deliveries.get(self.delivery_number)
        self.delivery_number += 1
        return self._noted(fault)

    def _noted(self, fault: Fault | FakeRefusal | None) -> Fault | FakeRefusal | None:
        if fault is not None:
            self.happened.append(fault)
        return fault
