"""A shop whose workers are killed all the time, and its broker once: what they reserved is right to the unit.

    python -m examples.orders [--orders N] [--workers N] [--kills N] [--rounds N]

Orders and restocks go through one topic, keyed by what they are of. Workers share its partitions as members of one group,
and reserve what is on the shelf: the effect and the place in the log go into SQLite in one transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from pathlib import Path

import riverrun
from examples.broker import Broker, running_broker
from examples.orders.events import PARTITIONS, TOPIC, Event, expected, made_events
from examples.orders.shelf import Shelf, Summary
from examples.orders.workers import Workers

_INTERRUPTED = 130
_LOOK_EVERY_S = 0.1


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--orders", type=int, default=20_000, help="how many there are")
    parser.add_argument("--workers", type=int, default=3, help="how many work at a time")
    parser.add_argument(
        "--kills", type=int, default=6, help="how many of them are killed (SIGKILL)"
    )
    parser.add_argument("--rounds", type=int, default=1, help="do it all so many times")
    parser.add_argument("--seed", type=int, default=None, help="of orders and kills")
    options = parser.parse_args()
    logging.getLogger("riverrun").addHandler(logging.NullHandler())
    for number in range(options.rounds):
        seed = random.randrange(1 << 30) if options.seed is None else options.seed + number
        _say(f"round {number + 1} of {options.rounds}, --seed {seed}")
        try:
            code = asyncio.run(_round(options, random.Random(seed)))
        except KeyboardInterrupt:
            _say("stopped; the broker, the workers and what they wrote are gone")
            return _INTERRUPTED
        if code:
            return code
    return 0


async def _round(options: argparse.Namespace, dice: random.Random) -> int:
    events = made_events(options.orders, dice)
    with tempfile.TemporaryDirectory(prefix="riverrun-orders-") as folder:
        shelf = Shelf(Path(folder) / "shelf.db")
        async with running_broker() as broker, riverrun.Client(broker.address) as client:
            await client.admin().create_topic(TOPIC, partitions=PARTITIONS)
            async with Workers(broker.address, shelf.path, options.workers) as workers:
                harm = asyncio.create_task(_harm(broker, workers, options.kills, dice))
                await _send(client, events)
                await harm
                await _until_done(client, shelf)
        return _verdict(events, shelf.summary())


async def _send(client: riverrun.Client, events: list[Event]) -> None:
    """Send everything in order, some at a time, so that there is work while workers die."""
    async with client.producer() as producer:
        some = max(1, len(events) // 100)
        for at in range(0, len(events), some):
            await producer.send_many(TOPIC, [each.record for each in events[at : at + some]])
            await asyncio.sleep(0.05)
    _say(f"{len(events):,} orders and restocks are sent")


async def _harm(broker: Broker, workers: Workers, kills: int, dice: random.Random) -> None:
    """Kill workers, and half way the broker."""
    for number in range(kills):
        await asyncio.sleep(dice.uniform(0.2, 0.8))
        if number == kills // 2:
            await broker.kill()
            _say("the broker was killed (SIGKILL)")
            await broker.start()
            _say("the broker is back")
        await workers.kill_one(dice)
    _say(f"{kills} workers were killed (SIGKILL), each replaced by another")


async def _until_done(client: riverrun.Client, shelf: Shelf) -> None:
    """Wait until everything that was sent is on the shelf."""
    found = await client.admin().list_offsets(TOPIC, "latest")
    ends = {each.partition: each.high_watermark for each in found}
    wanted = {partition: end for partition, end in ends.items() if end}
    while shelf.places() != wanted:  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(_LOOK_EVERY_S)


def _verdict(events: list[Event], found: Summary) -> int:
    wanted = expected(events)
    _say(
        f"{found.reserved:,} orders reserved, {found.refused:,} refused for want of stock, "
        f"{sum(found.stock.values()):,} units left of {len(found.stock)} articles"
    )
    if any(units < 0 for units in found.stock.values()):
        _say("OVERSOLD")
        return 1
    if found != wanted:
        _say(f"DIFFERENT: {wanted.reserved:,} were to be reserved and {wanted.refused:,} refused")
        return 1
    _say(
        "none lost, none twice, none oversold: the same as one worker would have done, to the unit"
    )
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
