"""An interrupt comes wherever it wants to: who takes records leaves nothing locked behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from riverrun.blocking.direct import Direct
from riverrun.blocking.loop_thread import LoopThread


class Interrupting:
    """A lock at which an interrupt comes once: as soon as it was got, or was let go."""

    def __init__(self, lock, when):
        self._lock, self._when = lock, when

    def acquire(self, **how):
        got = self._lock.acquire(**how)
        self._come("acquired")
        return got

    def release(self):
        self._lock.release()
        self._come("released")

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self.release()

    def _come(self, when):
        if self._when == when:
            self._when = None
            raise KeyboardInterrupt


@pytest.fixture
def direct():
    thread = LoopThread()
    yield Direct(thread)
    thread.close()
    thread.join()


async def taken():
    return 1


def take(direct):
    return direct.take(taken, lambda _: None, then_on=True, turn_s=5)


@pytest.mark.parametrize(
    ("lock", "when"), [("taking", "acquired"), ("taking", "released"), ("lock", "released")]
)
def test_an_interrupt_at_a_lock_leaves_the_turn_to_others_and_the_short_way_open(
    direct, lock, when
):
    real = getattr(direct, lock)
    setattr(direct, lock, Interrupting(real, when))
    with pytest.raises(KeyboardInterrupt):
        take(direct)
    setattr(direct, lock, real)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(take, direct).result(10) == 1
    assert direct.on, "a call that was interrupted still counts as under way"


def test_who_waits_in_vain_for_a_turn_takes_it_from_nobody(direct):
    free = threading.Event()

    async def wait():
        return await direct.thread._loop.run_in_executor(None, free.wait)

    with ThreadPoolExecutor(1) as other:
        first = other.submit(direct.take, wait, lambda _: None)
        while not direct._under_way:
            free.wait(0.001)
        with pytest.raises(TimeoutError):
            direct.take(taken, lambda _: None, turn_s=0.01)
        with pytest.raises(TimeoutError):
            direct.take(taken, lambda _: None, turn_s=0.01)
        free.set()
        assert first.result(10)
    assert take(direct) == 1
