"""Answers of one lane come in the order of its appends, whatever overtakes what."""

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.answer_order import AnswerOrder


def test_an_answer_waits_for_the_one_before_it_in_its_lane():
    order: AnswerOrder[str, int] = AnswerOrder()
    first, second = (order.begin(tag, 0, 0.0) for tag in (1, 2))
    parts = [order.add(each, "lane") for each in (first, second)]
    order.seal(first)
    order.seal(second)
    order.answer(second, parts[1], 2)
    assert order.take(10) == []
    order.answer(first, parts[0], 1)
    assert order.take(10) == [first, second]
    assert len(order) == 0


def test_lanes_do_not_wait_for_each_other():
    order: AnswerOrder[str, int] = AnswerOrder()
    slow, fast = (order.begin(tag, 0, 0.0) for tag in (1, 2))
    order.add(slow, "a")
    part = order.add(fast, "b")
    order.seal(slow)
    order.seal(fast)
    order.answer(fast, part, 0)
    assert order.take(10) == [fast]


def test_an_append_is_not_ready_before_all_of_its_parts_are_known():
    order: AnswerOrder[str, int] = AnswerOrder()
    pending = order.begin(1, 0, 0.0)
    order.answer(pending, order.add(pending, "a"), 0)
    assert not order.has_ready
    order.seal(pending)
    assert order.has_ready


def test_an_answer_that_comes_after_it_was_overdue_is_dropped():
    order: AnswerOrder[str, str] = AnswerOrder()
    pending = order.begin(1, 0, deadline=5.0)
    part = order.add(pending, "a")
    order.seal(pending)
    assert order.overdue(4.9) == []
    assert order.overdue(5.0) == [pending]
    order.answer(pending, part, "timed out")
    order.answer(pending, part, "late")
    assert order.take(1)[0].parts[0].answer == "timed out"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), max_size=12),
    st.randoms(use_true_random=False),
)
def test_all_answers_come_out_once_and_in_the_order_of_each_lane(appends, random):
    order: AnswerOrder[int, int] = AnswerOrder()
    waiting = []
    for tag, lanes in enumerate(appends):
        pending = order.begin(tag, 1, 0.0)
        waiting += [(pending, order.add(pending, lane)) for lane in lanes]
        order.seal(pending)
    random.shuffle(waiting)
    out = []
    for pending, part in waiting:
        order.answer(pending, part, 0)
        for ready in order.take(random.randint(0, 3)):
            assert all(each.answer is not None for each in ready.parts)
            out.append(ready.tag)
    out += [ready.tag for ready in order.take(1000)]
    assert sorted(out) == list(range(len(appends)))
    for lane in range(4):
        in_lane = [tag for tag in out if lane in appends[tag]]
        assert in_lane == sorted(in_lane)
    assert len(order) == 0
    assert not order._lanes
