"""Reads events and keeps totals: live as a group that commits, or once more from the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import riverrun
from examples.flights.events import TOPICS
from examples.flights.totals import Totals
from riverrun import Record

GROUP = "delay-board"

_POLL_S = 0.2
_RECORDS_MAX = 5_000


async def watch(
    client: riverrun.Client, totals: Totals, sent: asyncio.Future[int], show: Callable[[], None]
) -> None:
    """Count events as they come, until all that were sent have been counted.

    The consumer outlives broken connections; how far it has come is committed as it goes.

    Args:
        client: the cluster.
        totals: where to count.
        sent: how many events there are, once that is known.
        show: called after each handful of records.
    """
    async with client.consumer(*TOPICS, group=GROUP) as consumer:
        while not (sent.done() and totals.events >= sent.result()):
            records = await consumer.getmany(_RECORDS_MAX, timeout_s=_POLL_S)
            _count(totals, records)
            if records:
                await consumer.commit()
            show()


async def count_again(client: riverrun.Client) -> Totals:
    """Read everything from the start to the end, as somebody would who comes a year later."""
    totals = Totals()
    async with client.consumer(*TOPICS, from_="earliest", stop_at_end=True) as consumer:
        while records := await consumer.getmany(_RECORDS_MAX):
            _count(totals, records)
    return totals


def _count(totals: Totals, records: list[Record]) -> None:
    for record in records:
        assert record.value is not None, "no event is a tombstone"
        totals.count(record.topic, record.timestamp_ms, record.value)
