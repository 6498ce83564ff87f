"""The one ordered shutdown: what stops when, what a crash means, and that it always ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
import structlog.testing

from riverrun_server.runtime.clock import SystemClock
from riverrun_server.runtime.supervisor import EXIT_HUNG, Stage, Supervisor


class Broker:
    """A supervisor whose steps and tasks write down what happened to them."""

    def __init__(self, drain_timeout_s: float = 5.0) -> None:
        self.seen: list[str] = []
        self.armed: list[float] = []
        self.crashes = 0
        self.supervisor = Supervisor(
            SystemClock(),
            drain_timeout_s=drain_timeout_s,
            crashed=self._crashed,
            backstop=self.armed.append,
        )

    def _crashed(self) -> None:
        self.crashes += 1

    def step(self, stage: Stage) -> None:
        async def run(_seconds: float) -> None:
            self.seen.append(stage.name)

        self.supervisor.on_stop(stage, stage.name, run)

    async def forever(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append(f"{name} ended")


async def test_stages_run_in_their_order_whatever_the_order_of_registration():
    broker = Broker()
    for stage in reversed(Stage):
        broker.step(stage)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == 0
    assert broker.seen == [stage.name for stage in Stage]


async def test_a_task_ends_at_the_beginning_of_its_stage():
    broker = Broker()
    for stage in Stage:
        broker.step(stage)
    broker.supervisor.spawn("reader", broker.forever("reader"))
    broker.supervisor.spawn("flusher", broker.forever("flusher"), until=Stage.STOP_THREADS)
    await asyncio.sleep(0)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == 0
    assert broker.seen == [
        "HAND_ON",
        "STOP_ACCEPTING",
        "DRAIN_STREAMS",
        "reader ended",
        "STOP_READERS",
        "FLUSH",
        "CLOSE_METADATA",
        "flusher ended",
        "STOP_THREADS",
        "CLOSE_STORE",
    ]


async def test_the_crash_of_a_critical_task_stops_the_broker_and_the_exit_code_says_so():
    broker = Broker()
    for stage in Stage:
        broker.step(stage)

    async def crash() -> None:
        raise OSError("disk gone")

    broker.supervisor.spawn("flusher", crash())
    with structlog.testing.capture_logs() as logs:
        assert await broker.supervisor.run() == 1
    assert isinstance(broker.supervisor.failure, OSError)
    assert broker.crashes == 1
    assert broker.seen == [stage.name for stage in Stage]
    [crashed] = [line for line in logs if line["event"] == "background task crashed"]
    assert crashed["task"] == "flusher"


async def test_a_critical_task_that_just_ends_is_a_failure_too():
    broker = Broker()

    async def end() -> None:
        pass

    broker.supervisor.spawn("flusher", end())
    assert await broker.supervisor.run() == 1
    assert "ended by itself" in str(broker.supervisor.failure)


async def test_the_crash_of_another_task_is_logged_and_counted_and_stops_nothing():
    broker = Broker()
    done = asyncio.Event()

    async def crash() -> None:
        done.set()
        raise ValueError("bug")

    with structlog.testing.capture_logs() as logs:
        broker.supervisor.spawn("retention", crash(), critical=False)
        await done.wait()
        await asyncio.sleep(0)
        assert not broker.supervisor.stopping
        broker.supervisor.stop("test")
        assert await broker.supervisor.run() == 0
    assert broker.crashes == 1
    assert any(line["event"] == "background task crashed" for line in logs)


async def test_a_critical_task_that_crashes_during_the_shutdown_fails_it():
    broker = Broker()

    async def crash_when_told() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("the last flush failed") from None

    broker.supervisor.spawn("flusher", crash_when_told(), until=Stage.CLOSE_STORE)
    await asyncio.sleep(0)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == 1


@pytest.mark.parametrize(("stage", "code"), [(Stage.DRAIN_STREAMS, 0), (Stage.FLUSH, 1)])
async def test_a_step_that_fails_stops_no_later_one_and_counts_only_in_the_store(stage, code):
    broker = Broker()

    async def fail(_seconds: float) -> None:
        raise RuntimeError("step")

    broker.supervisor.on_stop(stage, "failing", fail)
    broker.step(Stage.CLOSE_STORE)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == code
    assert broker.seen == ["CLOSE_STORE"]


async def test_a_stream_that_does_not_end_cannot_cost_the_store_its_clean_end():
    broker = Broker(drain_timeout_s=0.2)
    given: dict[str, float] = {}

    async def hang(seconds: float) -> None:
        given["drain"] = seconds
        await asyncio.Event().wait()

    async def flush(seconds: float) -> None:
        given["flush"] = seconds
        broker.seen.append("flushed")

    broker.supervisor.on_stop(Stage.DRAIN_STREAMS, "streams", hang)
    broker.supervisor.on_stop(Stage.FLUSH, "flush", flush)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == 0
    assert broker.seen == ["flushed"]
    assert given["drain"] == pytest.approx(0.13, abs=0.02)
    assert given["flush"] > 0.01


async def test_after_a_crash_clients_are_not_waited_for_long():
    broker = Broker(drain_timeout_s=100.0)
    given: list[float] = []

    async def drain(seconds: float) -> None:
        given.append(seconds)

    async def crash() -> None:
        raise OSError

    broker.supervisor.on_stop(Stage.DRAIN_STREAMS, "streams", drain)
    broker.supervisor.spawn("flusher", crash())
    assert await broker.supervisor.run() == 1
    assert given == [0.9]


async def test_a_store_that_hangs_is_cut_short_and_the_backstop_is_armed_once():
    broker = Broker(drain_timeout_s=0.1)

    async def hang(_seconds: float) -> None:
        await asyncio.Event().wait()

    broker.supervisor.on_stop(Stage.CLOSE_STORE, "close", hang)
    broker.supervisor.stop("first")
    broker.supervisor.stop("second")
    assert await broker.supervisor.run() == 1
    assert broker.armed == [0.1]


@pytest.mark.parametrize("stage", [Stage.FLUSH, Stage.CLOSE_METADATA, Stage.STOP_THREADS])
async def test_a_stage_that_hangs_leaves_time_to_those_behind_it(stage):
    broker = Broker(drain_timeout_s=1.0)
    given: list[float] = []

    async def hang(_seconds: float) -> None:
        await asyncio.Event().wait()

    async def close(seconds: float) -> None:
        given.append(seconds)

    broker.supervisor.on_stop(stage, "hanging", hang)
    broker.supervisor.on_stop(Stage.CLOSE_STORE, "store", close)
    broker.supervisor.stop("test")
    assert await broker.supervisor.run() == 1
    assert given[0] > 0


async def test_a_step_that_keeps_to_its_time_can_say_itself_what_hangs():
    broker = Broker(drain_timeout_s=1.5)

    async def wait(seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            raise OSError("the disk hangs") from None

    broker.supervisor.on_stop(Stage.STOP_THREADS, "threads", wait)
    with structlog.testing.capture_logs() as logs:
        broker.supervisor.stop("test")
        assert await broker.supervisor.run() == 1
    told = [line["event"] for line in logs if line.get("step") == "threads"]
    assert told == ["shutdown step failed"]


async def test_a_second_signal_while_draining_is_ignored():
    broker = Broker()
    drained = asyncio.Event()

    async def drain(_seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        await drained.wait()
        broker.seen.append("drained")

    broker.supervisor.on_stop(Stage.DRAIN_STREAMS, "streams", drain)
    broker.supervisor.watch_signals()
    os.kill(os.getpid(), signal.SIGTERM)
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(broker.supervisor.run())
        while sum(line["event"] == "already shutting down" for line in logs) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        drained.set()
        assert await running == 0
    assert broker.seen == ["drained"]


HANGING = """
import asyncio, time
from riverrun_server.runtime.clock import SystemClock
from riverrun_server.runtime.supervisor import Stage, Supervisor

async def main():
    supervisor = Supervisor(SystemClock(), drain_timeout_s=0.2)
    async def close(seconds):
        await asyncio.to_thread(time.sleep, 60)
    supervisor.on_stop(Stage.CLOSE_STORE, "close", close)
    supervisor.stop("test")
    return await supervisor.run()

raise SystemExit(asyncio.run(main()))
"""


def test_a_thread_that_never_comes_back_cannot_keep_the_process_alive():
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == EXIT_HUNG
    assert "the shutdown hung and was cut off" in done.stderr
