"""A question that many have at once is asked once, and never answered with what was known before it was put."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.runtime.shared_answers import SharedAnswers


class World:
    """Something that is asked, and answers when it is told to."""

    def __init__(self):
        self.value = 0
        self.asked = 0
        self.given_up = 0
        self.error = None
        self.may_answer = asyncio.Semaphore(0)
        self.answers = SharedAnswers(self.ask)

    async def ask(self):
        self.asked += 1
        seen = self.value
        try:
            await self.may_answer.acquire()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return seen

    def wanted(self):
        return asyncio.create_task(self.answers.answer())


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_who_ask_at_once_share_one_question():
    world = World()
    wanted = [world.wanted() for _ in range(100)]
    await turns()
    assert world.asked == 1
    world.may_answer.release()
    assert await asyncio.gather(*wanted) == [0] * 100


async def test_who_comes_while_it_is_asked_gets_an_answer_of_later_and_all_of_them_one():
    world = World()
    first = world.wanted()
    await turns()
    world.value = 1
    later = [world.wanted() for _ in range(100)]
    await turns()
    assert world.asked == 1
    world.may_answer.release()
    assert await first == 0
    await turns()
    assert world.asked == 2
    world.may_answer.release()
    assert await asyncio.gather(*later) == [1] * 100


async def test_an_error_reaches_everybody_and_the_next_asks_again():
    world = World()
    world.error = ValueError("no")
    wanted = [world.wanted() for _ in range(3)]
    world.may_answer.release()
    told = await asyncio.gather(*wanted, return_exceptions=True)
    assert [str(each) for each in told] == ["no"] * 3
    world.error = None
    again = world.wanted()
    world.may_answer.release()
    assert await again == 0
    assert world.asked == 2


async def test_who_goes_away_takes_the_answer_from_nobody():
    world = World()
    first, second = world.wanted(), world.wanted()
    await turns()
    first.cancel()
    await turns()
    world.may_answer.release()
    assert await second == 0
    assert first.cancelled()


async def test_a_question_that_nobody_waits_for_is_given_up():
    world = World()
    wanted = [world.wanted() for _ in range(2)]
    await turns()
    for each in wanted:
        each.cancel()
    await asyncio.gather(*wanted, return_exceptions=True)
    assert world.given_up == 1
    again = world.wanted()
    world.may_answer.release()
    assert await again == 0


async def test_a_question_that_was_still_to_be_asked_is_given_up_too():
    world = World()
    first = world.wanted()
    await turns()
    second = world.wanted()
    await turns()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    world.may_answer.release()
    assert await first == 0
    await turns()
    assert world.asked == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await world.answers.answer()
    assert world.given_up == 1
    third = world.wanted()
    world.may_answer.release()
    assert await third == 0
