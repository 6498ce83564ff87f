"""A member's stream against a model of its reader, while its group changes its mind at random."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading.assignment import Assignment, Given
from riverrun_server.core.reading.events import Run
from riverrun_server.core.reading.places import Position
from riverrun_server.core.reading.subscription import Subscription, SubscriptionSettings
from tests.core.told_reader import ToldReader

PARTITIONS = [PartitionId(b"t" * 16, number) for number in range(3)]
END = 1_000
CREDIT = 40
FAILED = Refusal(Reason.PARTITION_OFFLINE, "offline")

partition = st.sampled_from(PARTITIONS)
offset = st.integers(0, END)
# Which of those that are in question.
which = st.integers(0, len(PARTITIONS) - 1)


def pick(partitions, at_which):
    """Return one of some partitions."""
    found = sorted(partitions)
    return found[at_which % len(found)]


class MembersStream(RuleBasedStateMachine):
    """A group, a driver that writes one message at a time, and a reader."""

    def __init__(self):
        super().__init__()
        self.machine = Subscription(
            SubscriptionSettings(frame_bytes=250, credit_records=CREDIT, is_member=True)
        )
        self.assignment = Assignment(self.machine)
        self.reader = ToldReader()
        self.credit = CREDIT
        self.epoch = 0
        # What the group has given, and which of it is to be given up.
        self.given = {}
        self.asked_back = set()
        self.unplaced = {}
        self.writing = None
        self.fenced = False

    # The group, whatever the stream is doing.

    @precondition(lambda self: len(self.given) < len(PARTITIONS))
    @rule(at_which=which, lag=st.integers(0, 2))
    def give(self, at_which, lag):
        each = pick(set(PARTITIONS) - self.given.keys(), at_which)
        self.epoch += lag + 1
        given = Given("t", each, self.epoch - lag)
        self.given[each] = self.unplaced[each] = given
        self.assignment.given(self.epoch, [given])

    @precondition(lambda self: self.unplaced)
    @rule(at_which=which, at=offset)
    def place(self, at_which, at):
        each = pick(self.unplaced, at_which)
        self.assignment.placed(self.unplaced.pop(each), Position("t", each, at, END, 0))

    @precondition(lambda self: self.unplaced)
    @rule(at_which=which)
    def place_nowhere(self, at_which):
        self.assignment.placed(self.unplaced.pop(pick(self.unplaced, at_which)), FAILED)

    @precondition(lambda self: self.given)
    @rule(at_which=which)
    def revoke(self, at_which):
        each = pick(self.given, at_which)
        self.epoch += 1
        if self.assignment.revoked(self.epoch, [each]):
            self.forget(each)
        else:
            self.asked_back.add(each)

    @precondition(lambda self: self.asked_back)
    @rule(at_which=which)
    def release(self, at_which):
        """Acknowledge what is asked back, perhaps in the name of a reader that is not told yet."""
        each = pick(self.asked_back, at_which)
        self.assignment.released([each])
        self.forget(each)

    @precondition(lambda self: self.given)
    @rule(at_which=which)
    def lose(self, at_which):
        each = pick(self.given, at_which)
        self.epoch += 1
        self.assignment.lost(self.epoch, [each])
        self.forget(each)

    @rule(each=partition)
    def late_place(self, each):
        """What was looked up for an assignment that is gone is nobody's place."""
        self.assignment.placed(Given("t", each, -1), Position("t", each, 0, END, 0))

    @rule()
    def fence(self):
        self.machine.fenced()
        self.fenced = True

    @rule()
    def unfence(self):
        self.machine.unfenced()
        self.fenced = False

    def forget(self, each):
        del self.given[each]
        self.unplaced.pop(each, None)
        self.asked_back.discard(each)

    # Cursors, whenever they like.

    @rule(each=partition)
    def wake(self, each):
        self.machine.woke(each)

    @rule(each=partition)
    def observe(self, each):
        self.machine.observed(each, END, 0)

    # The driver: between two messages.

    @precondition(lambda self: self.writing is None)
    @rule()
    def apply(self):
        applied = self.assignment.apply()
        assert not set(applied.gone) & (
            set(self.machine.partitions) - {p for p, _ in applied.begun}
        )
        self.hear()

    @precondition(lambda self: self.writing is None)
    @rule(size=st.integers(1, 6), more=st.booleans())
    def cut(self, size, more):
        turn = self.machine.turn()
        if turn is None:
            assert self.fenced or self.credit <= 0 or not any(map(self.has_turn, PARTITIONS))
            return
        assert not self.fenced
        assert self.credit > 0
        if not self.machine.has_run:
            first = self.machine.partitions[turn].offset
            if first == END:
                self.machine.idle(turn)
                self.hear()
                return
            end = min(END, first + 10 * size)
            pieces = [
                StoredBatch(at, min(end, at + 10), 1, b"x" * 100) for at in range(first, end, 10)
            ]
            self.machine.offered(turn, Run(pieces, end, END, 0, more and end < END))
        self.writing = self.machine.cut()

    @precondition(lambda self: self.writing is not None)
    @rule()
    def written(self):
        self.reader.receive(self.writing)
        self.machine.delivered(self.writing)
        self.credit -= self.writing.records
        self.writing = None
        self.hear()

    def hear(self):
        while self.machine.events:
            self.reader.hear(self.machine.events.popleft())

    def has_turn(self, each):
        return each in self.machine._turns._left

    # The reader's control: between two messages, too, and only over what it has.

    @precondition(lambda self: self.writing is None and self.reader.mine)
    @rule(at_which=which, at=offset)
    def seek(self, at_which, at):
        each = pick(self.reader.mine, at_which)
        self.machine.sought(1, Position("t", each, at, END, 0))
        self.hear()

    @precondition(lambda self: self.writing is None and self.reader.mine)
    @rule(at_which=which)
    def pause(self, at_which):
        each = pick(self.reader.mine, at_which)
        self.machine.paused([each])
        self.reader.paused.add(each)

    @precondition(lambda self: self.writing is None and self.reader.mine)
    @rule(at_which=which)
    def resume(self, at_which):
        each = pick(self.reader.mine, at_which)
        self.reader.paused.discard(each)
        self.machine.resumed([each])
        self.hear()

    @precondition(lambda self: self.writing is None and self.reader.mine)
    @rule(at_which=which)
    def fail(self, at_which):
        self.machine.stopped(pick(self.reader.mine, at_which), FAILED)
        self.hear()

    @rule(records=st.integers(0, 60))
    def grant(self, records):
        self.machine.granted(records, None)
        self.credit += records

    # What holds all the time.

    @invariant()
    def credit_is_what_was_granted_less_what_was_sent(self):
        assert self.machine.heartbeat().credit_records == self.credit

    @invariant()
    def whoever_has_something_to_read_has_a_turn_and_nobody_else(self):
        for each in PARTITIONS:
            # At the end it may have one, or not; so it may while a delivery is being written.
            if self.writing is None and self.reader.flows(each) and self.reader.next[each] < END:
                assert self.has_turn(each)
            elif not self.reader.flows(each):
                assert not self.has_turn(each)

    @invariant()
    def nothing_is_kept_of_what_the_reader_does_not_have(self):
        machine, kept = self.machine, self.assignment
        has = set(machine.partitions)
        assert has == kept._held
        assert has <= set(self.reader.next)
        assert machine._turns._left.keys() | machine._turns._debts.keys() <= has
        assert set(machine._turns._queue) == machine._turns._left.keys()
        assert machine._run_of is None or machine.partitions[machine._run_of].flows
        assert set(kept._coming) <= set(self.given)
        assert set(kept._placed) <= set(kept._coming)
        assert kept._revoking <= kept._held
        for noted in (kept._to_lose, kept._to_revoke, kept._to_release):
            assert set(noted) <= kept._held

    def teardown(self):
        """Whatever came before: with all places known and all leave, everything that it has flows."""
        if self.writing is not None:
            self.written()
        while self.unplaced:
            self.place(0, 0)
        self.unfence()
        self.grant(10_000_000)
        self.apply()
        assert self.reader.mine == self.given.keys() - self.asked_back
        for at_which in range(len(self.reader.mine)):
            self.seek(at_which, 0)
            self.resume(at_which)
        for _ in range(10_000):
            if self.machine.turn() is None:
                break
            self.cut(6, False)
            if self.writing is not None:
                self.written()
        for each, at in self.reader.next.items():
            assert each in self.reader.revoking or at == END


MembersStream.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestMembersStream = MembersStream.TestCase
