"""Room for produced bytes: whoever finds none is counted, whether it waits or is refused."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.admission import ByteBudget
from riverrun_server.core.errors import Refusal
from riverrun_server.runtime.in_flight import InFlightBytes


async def test_a_bound_that_is_reached_is_counted_once_for_each_who_meets_it():
    reached = []
    in_flight = InFlightBytes(ByteBudget(100, 100), lambda: reached.append(1))
    first, second = in_flight.connection(), in_flight.connection()
    await first.take(60)
    assert reached == []
    waiting = asyncio.create_task(second.take(60))
    await asyncio.sleep(0)
    in_flight.wake()  # in vain: there is no room yet
    await asyncio.sleep(0)
    assert reached == [1]
    with pytest.raises(Refusal):
        in_flight.connection().take_now(60)
    assert reached == [1, 1]
    first.close()
    await waiting
    assert in_flight.budget.used_bytes == 60
