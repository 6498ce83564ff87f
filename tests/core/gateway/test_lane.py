"""A partition's appends keep their order over changes of the leader, and none is sent or answered twice."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from riverrun_server.core.gateway.lane import AppendLane, Steps

WAIT_S = 1.0
ROOM = 100


def lane(**options):
    return AppendLane(WAIT_S, ROOM, **options)


def test_what_comes_while_the_leader_can_be_reached_is_sent_at_once():
    it = lane()
    assert it.follow(1, reachable=True) == Steps()
    assert it.submit("a", 1, 0.0) == Steps(send=("a",))
    assert it.submit("b", 1, 0.0) == Steps(send=("b",))
    assert it.answered("a", failed=False) == Steps()


def test_what_waits_for_a_leader_is_sent_in_order_once_there_is_one():
    it = lane()
    assert it.submit("a", 1, 0.0) == Steps()
    assert it.submit("b", 1, 0.5) == Steps()
    assert it.expires_at == WAIT_S
    assert it.follow(1, reachable=True) == Steps(send=("a", "b"))
    assert it.expires_at is None


def test_with_the_oldest_all_that_wait_are_refused():
    it = lane()
    it.submit("a", 1, 0.0)
    it.submit("b", 1, 0.9)
    assert it.expire(0.99) == Steps()
    assert it.expire(WAIT_S) == Steps(refused=("a", "b"))


def test_more_than_may_wait_is_refused_but_one_append_waits_whatever_its_size():
    it = lane()
    assert it.submit("a", ROOM + 1, 0.0) == Steps()
    assert it.submit("b", 1, 0.0) == Steps(refused=("b",))


def test_a_newer_leader_epoch_makes_unknown_what_was_sent_before_anything_goes_to_the_new_leader():
    it = lane()
    it.follow(1, reachable=True)
    it.submit("a", 1, 0.0)
    it.submit("b", 1, 0.0)
    it.answered("a", failed=False)
    assert it.follow(2, reachable=True) == Steps(unknown=("b",))
    assert it.submit("c", 1, 0.0) == Steps(send=("c",))
    assert it.answered("b", failed=False) is None


def test_the_same_leader_in_a_newer_epoch_is_another_leader():
    it = lane()
    it.follow(1, reachable=True)
    it.submit("a", 1, 0.0)
    assert it.follow(2, reachable=True).unknown == ("a",)


def test_an_older_leader_epoch_is_no_news():
    it = lane()
    it.follow(3, reachable=True)
    it.submit("a", 1, 0.0)
    assert it.follow(2, reachable=False) == Steps()
    assert it.submit("b", 1, 0.0) == Steps(send=("b",))


def test_what_waits_behind_one_that_fails_is_refused_so_that_it_does_not_overtake_the_retry():
    it = lane()
    it.follow(1, reachable=True)
    it.submit("a", 1, 0.0)
    it.follow(1, reachable=False)
    it.submit("b", 1, 0.0)
    assert it.answered("a", failed=True) == Steps(refused=("b",))
    it.submit("c", 1, 0.0)
    assert it.follow(1, reachable=True) == Steps(send=("c",))


def test_what_waits_behind_one_that_becomes_unknown_is_refused():
    it = lane()
    it.follow(1, reachable=True)
    it.submit("a", 1, 0.0)
    it.follow(1, reachable=False)
    it.submit("b", 1, 0.0)
    assert it.follow(2, reachable=True) == Steps(unknown=("a",), refused=("b",))


def test_a_closed_lane_has_answered_everything():
    it = lane()
    it.follow(1, reachable=True)
    it.submit("a", 1, 0.0)
    it.follow(1, reachable=False)
    it.submit("b", 1, 0.0)
    assert it.close() == Steps(unknown=("a",), refused=("b",))


class LaneMachine(RuleBasedStateMachine):
    """Clients, leaders and links in any order; a model keeps what was promised to whom."""

    def __init__(self):
        super().__init__()
        self.lane = lane()
        self.lane.follow(0, reachable=False)
        self.now = 0.0
        self.epoch, self.reachable = 0, False
        self.submitted = []
        self.sent = {}  # append: the leader epoch it was sent in
        self.ended = {}  # append: what it was told
        self.failures = []  # in the order of becoming known
        self.failures_before = {}  # append: how many were known when it was handed in

    def carry_out(self, steps):
        for each in steps.unknown:
            assert each in self.sent, "never sent, so its outcome is known"
            self.end(each, "unknown")
        for each in steps.refused:
            assert each not in self.sent, "it was sent, so it may have been written"
            self.end(each, "refused")
        for each in steps.send:
            assert each not in self.sent, "sent twice"
            assert each not in self.ended, "sent after its answer"
            since = self.failures[self.failures_before[each] :]
            assert not [a for a in since if a < each], "it overtakes a retry"
            earlier = [a for a in self.submitted if a < each]
            assert all(a in self.sent or a in self.ended for a in earlier), "out of order"
            assert self.reachable, "there is nobody to send it to"
            assert not self.open_before(self.epoch), "the old leader has not answered"
            self.sent[each] = self.epoch

    def open_before(self, epoch):
        """What was sent in an older epoch and has not been answered."""
        return [a for a, sent in self.sent.items() if sent < epoch and a not in self.ended]

    def end(self, append, how):
        assert append not in self.ended, "answered twice"
        self.ended[append] = how
        if how != "written":
            self.failures.append(append)

    @rule(size=st.integers(1, 60))
    def submit(self, size):
        append = len(self.submitted)
        self.submitted.append(append)
        self.failures_before[append] = len(self.failures)
        self.carry_out(self.lane.submit(append, size, self.now))

    @rule(step=st.sampled_from([-1, 0, 0, 1]), reachable=st.booleans())
    def follow(self, step, reachable):
        epoch = self.epoch + step
        if epoch >= self.epoch:
            self.epoch, self.reachable = epoch, reachable
        self.carry_out(self.lane.follow(epoch, reachable=reachable))
        assert not self.open_before(self.epoch), "nobody will answer it"

    @precondition(lambda self: set(self.sent) - set(self.ended))
    @rule(failed=st.booleans())
    def answer_the_oldest(self, failed):
        self.answer(min(set(self.sent) - set(self.ended)), failed)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), failed=st.booleans())
    def answer_any(self, data, failed):
        self.answer(data.draw(st.sampled_from(sorted(self.sent))), failed)

    def answer(self, append, failed):
        steps = self.lane.answered(append, failed=failed)
        if append in self.ended:
            assert steps is None
            return
        assert steps is not None
        self.end(append, "failed" if failed else "written")
        self.carry_out(steps)

    @rule(passes=st.floats(0.0, 1.2))
    def time_passes(self, passes):
        self.now += passes
        self.carry_out(self.lane.expire(self.now))

    @invariant()
    def everything_is_somewhere(self):
        waiting = [a for a in self.submitted if a not in self.sent and a not in self.ended]
        assert (self.lane.expires_at is not None) == bool(waiting)
        assert not waiting or not self.reachable, "it waits for a leader that is there"

    def teardown(self):
        self.carry_out(self.lane.close())
        assert set(self.ended) == set(self.submitted), "lost"


TestLane = LaneMachine.TestCase
TestLane.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
