"""What a broker knows of its own health: hearts that beat, and the stages of its life.

Liveness asks only whether the event loop and the storage thread still answer; a broker that waits
for others is alive. Readiness asks whether this broker serves. Written by the loop and by threads,
read by the HTTP thread: each value is one attribute, so no lock is needed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from riverrun_server.ports.clock import Clock


class Life(enum.Enum):
    """Stages of a broker's life, passed in this order; each but SERVING refuses readiness."""

    STARTING = "the store is being opened"
    REGISTERING = "the broker is registering"
    SERVING = "serving"
    DRAINING = "the broker is shutting down"


class Check(NamedTuple):
    """The answer to one question."""

    name: str
    ok: bool
    text: str


class Heart:
    """Something that must answer from time to time."""

    def __init__(self, name: str, clock: Clock, allowed_s: float) -> None:
        self.name = name
        self._clock = clock
        self._allowed_s = allowed_s
        self._beat_at = clock.monotonic()

    def beat(self) -> None:
        """Answer; may be called from any thread."""
        self._beat_at = self._clock.monotonic()

    def check(self) -> Check:
        """Return whether the last answer is recent enough."""
        age_s = self._clock.monotonic() - self._beat_at
        ok = age_s <= self._allowed_s
        text = f"answered {age_s:.1f} s ago, {self._allowed_s:g} s are allowed"
        return Check(self.name, ok, text)


class Health:
    """A broker's hearts and its stage of life.

    Transitions of `life`: STARTING -> REGISTERING -> SERVING -> DRAINING; any -> DRAINING.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hearts: tuple[Heart, ...] = ()
        self.life = Life.STARTING

    def heart(self, name: str, allowed_s: float) -> Heart:
        """Add something that must answer at least every `allowed_s` seconds from now on."""
        heart = Heart(name, self._clock, allowed_s)
        self._hearts = (*self._hearts, heart)
        return heart

    def live(self) -> list[Check]:
        """Answer for /livez: restart the process if one of these is not ok."""
        return [heart.check() for heart in self._hearts]

    def ready(self) -> list[Check]:
        """Answer for /readyz: send no clients if one of these is not ok."""
        return [Check("serving", self.life is Life.SERVING, self.life.value), *self.live()]


async def keep_asking(ask: Callable[[], Awaitable[object]], heart: Heart, every_s: float) -> None:
    """Let a heart beat each time that `ask` is answered, until cancelled.

    `ask` has to go through what is to be proved alive, such as a no-op in the storage thread.
    """
    while True:
        await ask()
        heart.beat()
        await asyncio.sleep(every_s)
