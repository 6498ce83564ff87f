"""Sends bent requests to a broker, many at a time, and has the answers judged."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

import riverrun
from riverrun.v1 import admin_pb2
from tests.e2e.hostile.judge import Judge
from tests.e2e.hostile.mutations import Bender, Method, methods
from tests.e2e.hostile.raw_http2 import Crowd, RawConnection, framed

TOPICS = ("bent-1", "bent-2", "bent-3")
# Calls that only a caller's hanging up ends are given so long.
_PATIENCE_S = 0.5
_AT_ONCE = 25


class Bent(NamedTuple):
    """One call: its messages, whether the caller ends its half, and the values of its records."""

    method: Method
    messages: list[bytes]
    ends: bool
    values: set[bytes]


async def make_topics(connection: RawConnection) -> None:
    """Make the topics that requests name; they may be deleted by one of them."""
    for topic in TOPICS:
        request = admin_pb2.CreateTopicRequest(topic=topic, partitions=2, if_not_exists=True)
        await connection.ask("/riverrun.v1.AdminService/CreateTopic", request.SerializeToString())


async def bend(
    address: str, seed: int, judge: Judge, until: Callable[[int], bool], told: float = 30.0
) -> int:
    """Send bent requests until it is enough; return how many.

    Args:
        address: of the broker.
        seed: the same one makes the same requests.
        judge: is given every answer.
        until: is given how many were sent, and says when it is enough.
        told: for how long an answer is waited for.
    """
    dice, sent = random.Random(seed), 0
    bender, every = Bender(dice, TOPICS), methods()
    while not until(sent):
        async with Crowd(address) as crowd:
            connection = await crowd.connect()
            await make_topics(connection)
            calls = []
            for _ in range(_AT_ONCE):
                method = dice.choice(every)
                calls.append(
                    Bent(method, bender.messages(method), dice.random() < 0.8, bender.values)
                )
            await _send(connection, calls, judge, told)
            sent += len(calls)
    return sent


async def visible(address: str, refused: set[bytes]) -> list[str]:
    """Return what stands in the log although nothing happened, and what cannot be read at all."""
    wrong: list[str] = []
    async with riverrun.Client(address) as client:
        there = {info.name async for info in client.admin().list_topics()}
        for topic in sorted(there.intersection(TOPICS)):
            async with client.consumer(topic, stop_at_end=True) as consumer:
                values = {record.value async for record in consumer}
            wrong += [f"{v!r} was refused and stands in {topic}" for v in values & refused]
    return wrong


async def _send(
    connection: RawConnection,
    calls: list[Bent],
    judge: Judge,
    told: float,
) -> None:
    streams = []
    for method, messages, ends, _ in calls:
        stream = connection.call(method.path)
        # Unary calls end with their message; only streams may be left open.
        for message in messages:
            await connection.send(stream, framed(message))
        if (ends or not method.streams) and connection.answers[stream].reset is None:
            await connection.send(stream, b"", end=not connection.answers[stream].ended)
        streams.append(stream)
    deadline = time.monotonic() + told
    patience = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and not connection.closed:
        waiting = [
            (stream, call)
            for stream, call in zip(streams, calls, strict=True)
            if not connection.answers[stream].ended and connection.answers[stream].reset is None
        ]
        unary = [call for _, call in waiting if not call[0].descriptor.server_streaming]
        if not waiting or (time.monotonic() > patience and not unary):
            break
        await connection.hear(0.1)
    for stream, (method, messages, _, values) in zip(streams, calls, strict=True):
        judge.look(method, messages, connection.answers[stream], values)
    if connection.went_away is not None:
        judge.complaints.append(f"the connection was ended with {connection.went_away}")
