"""Appends to a partition of the offsets topic, each at the offset where it is expected to stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from riverrun.v1.records_pb2 import Record
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.partitions import Acks, Append, Appended, PartitionAccess
from riverrun_server.wire.ingress import IngressLimits, pack

# What passes by itself, soon: nothing was written, and the same append may succeed.
_TRY_AGAIN: Final = frozenset(
    {Reason.STORAGE_STALLED, Reason.OVERLOADED, Reason.NOT_ENOUGH_REPLICAS}
)


class OffsetsAppends:
    """Appends one batch after the other.

    Args:
        access: the partition itself.
        now_ms: the broker's clock.
        retry_after_s: the pauses before an append is tried again.
    """

    def __init__(
        self, access: PartitionAccess, now_ms: Callable[[], int], retry_after_s: Sequence[float]
    ) -> None:
        self._access = access
        self._now_ms = now_ms
        self._retry_after_s = retry_after_s

    async def append(self, records: list[Record], offset: int) -> int:
        """Append a batch and return its offset once it is committed; what is behind gets some time.

        Args:
            records: of the batch.
            offset: where the log must end now, or somebody else has appended to it.

        Raises:
            Refusal: why it was not appended, EXPECTED_OFFSET_MISMATCH too; or why nobody knows.
        """
        for pause_s in (*self._retry_after_s, None):
            appended = await self._once(records, offset)
            error = appended.error
            if error is None:
                assert appended.base_offset == offset, appended
                return offset
            if pause_s is None or error.reason not in _TRY_AGAIN:
                raise error
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, records: list[Record], offset: int) -> Appended:
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def answer(appended: Appended) -> None:
            if not done.done():
                done.set_result(appended)

        batch = pack(records, IngressLimits(self._access.max_batch_bytes), self._now_ms())
        self._access.submit(Append(batch, Acks.ALL, answer, offset))
        return await done


def shutting_down() -> Refusal:
    """Return what is told to whoever waits when the broker ends."""
    return Refusal(
        Reason.SHUTTING_DOWN,
        "the broker is shutting down; the offsets were not stored, commit again",
    )


def unknown(why: Refusal) -> Refusal:
    """Return what is told of an append that was under way when a coordinator ended."""
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        f"{why.message.partition(';')[0]}, and cannot tell whether the offsets were stored; ask "
        "FetchOffsets, or commit again",
    )
