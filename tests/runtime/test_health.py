"""Live while loop and storage answer; ready only while serving."""

from __future__ import annotations

import asyncio

from riverrun_server.runtime.health import Health, Life, keep_asking


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def wall_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now


def ok(checks) -> dict[str, bool]:
    return {check.name: check.ok for check in checks}


def test_a_heart_that_stops_beating_ends_liveness_and_readiness():
    clock = FakeClock()
    health = Health(clock)
    loop, storage = health.heart("loop", 10.0), health.heart("storage", 30.0)
    health.life = Life.SERVING
    clock.now = 10.0
    assert ok(health.live()) == {"loop": True, "storage": True}
    clock.now = 10.1
    assert ok(health.live()) == {"loop": False, "storage": True}
    assert ok(health.ready()) == {"serving": True, "loop": False, "storage": True}
    assert health.live()[0].text == "answered 10.1 s ago, 10 s are allowed"
    loop.beat()
    clock.now = 30.1
    assert ok(health.live()) == {"loop": False, "storage": False}
    storage.beat()
    loop.beat()
    assert ok(health.live()) == {"loop": True, "storage": True}


def test_only_a_serving_broker_is_ready_and_every_stage_of_life_is_alive():
    health = Health(FakeClock())
    for life in Life:
        health.life = life
        assert ok(health.ready())["serving"] is (life is Life.SERVING)
        assert all(check.ok for check in health.live())


async def test_a_heart_beats_only_when_what_was_asked_answered():
    clock = FakeClock()
    heart = Health(clock).heart("storage", 1.0)
    clock.now = 5.0
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        asked.set()
        await answer.wait()

    task = asyncio.create_task(keep_asking(ask, heart, 3600.0))
    await asked.wait()
    assert not heart.check().ok
    answer.set()
    while not heart.check().ok:  # noqa: ASYNC110 - what is awaited sets no event
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
