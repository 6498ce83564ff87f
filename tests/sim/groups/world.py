"""What everything in a simulated seed shares: the loop, dice, the trace, and how a rule is broken."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.sim.cluster.trace import Trace
from tests.sim.groups.options import Options
from tests.sim.groups.processes import ProcessLoop


class Violation(Exception):
    """A rule was broken.

    Args:
        rule: its name.
        text: what has happened.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class World:
    """What everything in a seed shares.

    Args:
        loop: the loop.
        options: what the seed is like.
    """

    def __init__(self, loop: ProcessLoop, options: Options) -> None:
        self.loop = loop
        self.seed = loop.seed
        self.options = options
        self.trace = Trace()
        self.violation: Violation | None = None
        self.is_over = False
        self.is_broken = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def dice(self, name: str) -> random.Random:
        """Return the dice of one part of the world."""
        return random.Random(f"{self.seed} {name}")

    def note(self, who: object, what: str, *details: object) -> None:
        """Put an event into the trace."""
        if not self.is_over:
            self.trace.add(self.loop.time(), who, what, *details)

    def broken(self, rule: str, text: str) -> None:
        """Note that a rule was broken; the first one counts."""
        if self.violation is None and not self.is_over:
            self.violation = Violation(rule, f"{text} (at {self.loop.time():.3f} s)")
            self.note("checker", "violation", self.violation)
            self.is_broken.set()

    def failed(self, text: str, error: BaseException | None) -> None:
        """Note that the code under test has failed with what is no refusal."""
        if self.violation is None:
            self.broken("exception", text)
            if self.violation is not None:
                self.violation.__cause__ = error
