"""Other brokers as a gateway sees them: leaders that take appends and feed readers; and how it serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Append, Appended, Chunk, PartitionAccess, Watermarks


class Origin(NamedTuple):
    """For whom a gateway asks.

    Attributes:
        principal: who made the call.
        listener: the name of the listener that it came in on.
    """

    principal: str = ""
    listener: str = ""


class Led(NamedTuple):
    """A partition, and the leadership under which something is asked of it."""

    partition: PartitionId
    leader_epoch: int


class Held(PartitionAccess, Protocol):
    """A partition of which this broker holds a replica; it serves while it leads."""

    @property
    def offline(self) -> Refusal | None:
        """Why nothing can be done with it here, or None."""
        ...

    @property
    def leader_epoch(self) -> int:
        """Of the newest leadership that is known here."""
        ...

    @property
    def high_watermark(self) -> int:
        """What lies below it is committed."""
        ...

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read."""
        ...

    def wait(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the high watermark has moved or this broker leads, or leads no more."""
        ...

    def unwait(self, wake: Callable[[], None]) -> None:
        """Take a `wait` back."""
        ...


class ServedHere(Protocol):
    """What a broker serves to the gateways of others: what it leads itself, and nothing else."""

    def led(self, led: Led) -> Held:
        """Return a partition that is led here, under that leadership.

        Raises:
            Refusal: NOT_LEADER with a hint, FENCED_LEADER_EPOCH with one, UNKNOWN_LEADER_EPOCH, or why
                it is offline.
        """
        ...

    async def begun(self, led: Led, within_s: float) -> None:
        """Wait until this broker knows a leadership that it does not know yet, or the time is up."""
        ...


class RemoteReader(Protocol):
    """One reader's place in a partition that another broker leads."""

    def want(self, max_bytes: int, *, wait: bool) -> None:
        """Ask for one portion; not again before it has come.

        Args:
            max_bytes: of batches; the first one may be larger where it does not wait.
            wait: answer only once there is something, and send it only if it fits.
        """
        ...

    def close(self) -> None:
        """Go away; nothing is told any more."""
        ...


class Leaders(Protocol):
    """Streams to the brokers that lead. Everything is called on the loop."""

    def watch(self, changed: Callable[[int], None]) -> None:
        """Have `changed` called with a broker's id whenever it can be sent appends, or no more."""
        ...

    def takes_appends(self, broker: int) -> bool:
        """Return whether appends can be sent now."""
        ...

    def connect(self, broker: int) -> None:
        """Have it tried to open the stream of appends, if it is not open; `changed` tells."""
        ...

    def append(
        self,
        broker: int,
        led: Led,
        append: Append,
        origin: Origin,
        done: Callable[[Appended], None],
    ) -> None:
        """Send an append, once; `done` is called exactly once, with an unknown outcome if the stream breaks."""
        ...

    def read(
        self,
        broker: int,
        led: Led,
        offset: int,
        last_epoch: int | None,
        origin: Origin,
        told: Callable[[Chunk | Refusal], None],
    ) -> RemoteReader:
        """Begin to read. `told` is called with each portion that was asked for; after a Refusal no more.

        Refusals are those of the leader, and LEADER_NOT_AVAILABLE where the stream breaks or does not open.
        """
        ...

    async def watermarks(self, broker: int, led: Led, origin: Origin) -> Watermarks:
        """Ask for a partition's offsets.

        Raises:
            Refusal: of the leader, or LEADER_NOT_AVAILABLE.
        """
        ...

    async def offset_at_time(
        self, broker: int, led: Led, time_ms: int, origin: Origin
    ) -> tuple[int, int] | None:
        """Ask for the (offset, timestamp) of the first record at or after a time.

        Raises:
            Refusal: as `watermarks`.
        """
        ...

    async def trim(self, broker: int, led: Led, before_offset: int, origin: Origin) -> int:
        """Have the records before an offset deleted; return the log start.

        Raises:
            Refusal: of the leader; REQUEST_TIMED_OUT where nobody knows what became of it.
        """
        ...

    def reach(self, brokers: Mapping[int, str]) -> None:
        """Learn where the other brokers listen for each other, by id; all streams to others end."""
        ...
