"""All of it in one terminal: a broker, the flights of 2013, live totals, and the same totals later.

    python -m examples.flights [--flights N] [--no-crash]

Half way through, the broker is killed and started again, so that you see what becomes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from datetime import date

import riverrun
from examples.broker import Broker, running_broker
from examples.flights.board import Board
from examples.flights.events import Event, events_of, flights
from examples.flights.replay import create_topics, day_of, replay
from examples.flights.totals import Totals
from examples.flights.watch import count_again, watch

# As a shell tells that a program was interrupted.
_INTERRUPTED = 130


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--flights", type=int, help="only so many, from New Year's Day on")
    parser.add_argument("--no-crash", action="store_true", help="leave the broker alone")
    options = parser.parse_args()
    # The client tells its log that connections break; here it would run through the table.
    logging.getLogger("riverrun").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_demo(options.flights, crash=not options.no_crash))
    except asyncio.CancelledError:
        _say("stopped; the broker and its data are gone")
        return _INTERRUPTED
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 1


async def _demo(limit: int | None, *, crash: bool) -> int:
    _end_on_signals()
    _say("reading the flights of 2013")
    rows = flights(limit)
    events = events_of(rows)
    async with running_broker() as broker, riverrun.Client(broker.address) as client:
        _say(f"{len(rows):,} flights are {len(events):,} events; the broker is {broker.address}")
        live = await _live(client, events, broker if crash else None)
        began_s = time.monotonic()
        again = await count_again(client)
        seconds = time.monotonic() - began_s
        _say(f"read again from the start: {again.events:,} events in {seconds:.1f} s")
    return _verdict(len(events), live, again)


async def _live(client: riverrun.Client, events: list[Event], victim: Broker | None) -> Totals:
    """Replay and watch at the same time; kill the broker, if there is one, half way through."""
    await create_topics(client)
    totals = Totals()
    sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    crash_day = day_of(events[len(events) // 2])
    with Board(totals, len(events)) as board:
        async with asyncio.TaskGroup() as tasks:

            async def day_done(day: date) -> None:
                if day == crash_day and victim is not None:
                    tasks.create_task(_crash(victim, board))

            tasks.create_task(watch(client, totals, sent, board.show))
            await replay(client, events, day_done)
            sent.set_result(len(events))
    return totals


async def _crash(broker: Broker, board: Board) -> None:
    """Kill the broker while everybody is at work, and bring it back."""
    await broker.kill()
    board.say("the broker was killed (SIGKILL)")
    began_s = time.monotonic()
    await broker.start()
    board.say(f"it is back after {time.monotonic() - began_s:.1f} s")


def _end_on_signals() -> None:
    """Have the first Ctrl-C or SIGTERM end the demo; a second one must not disturb the cleaning up."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "a coroutine runs in a task"

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def _verdict(sent: int, live: Totals, again: Totals) -> int:
    total = again.sum()
    _say(
        f"{total.departure_delay_min:,} minutes late at departure, {total.arrival_delay_min:,} at "
        f"arrival, {total.cancellations:,} cancelled"
    )
    if live != again or again.events != sent:
        _say(f"DIFFERENT: {sent:,} events sent, {live.events:,} seen live")
        return 1
    _say(f"the same as the live totals, to the minute, at each of {len(again.airports)} airports")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
