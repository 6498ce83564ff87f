"""A member's stream, driven, against a model of its reader while its group changes its mind at random."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.reading.control import Grant, PartitionName, Pause, Resume, Seek
from riverrun_server.core.reading.events import Delivery, Heartbeat, Started
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import COMMITTED, Place, PlaceKind
from riverrun_server.runtime.delivery_room import Deliveries, Room
from riverrun_server.wire import codecs, forms
from tests.core.told_reader import ToldReader
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.members_world import Member
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

PARTITIONS = 3
SMALL = ReadingLimits(
    run_bytes=300, chunk_bytes_min=200, read_ahead_bytes=1000, heartbeat_interval_s=0.5
)
FORMS = [forms.RECORDS, forms.batches(codecs.NAMES)]

partition = st.integers(0, PARTITIONS - 1)
give = st.tuples(st.just("give"), partition, st.floats(0, 1), st.sampled_from([0.0, 0.005, 0.3]))
step = st.one_of(
    give,
    give,
    give,
    st.tuples(st.just("append"), partition, st.integers(1, 9)),
    st.tuples(st.just("append"), partition, st.integers(1, 9)),
    st.tuples(st.just("revoke"), partition),
    st.tuples(st.just("release"), partition),
    st.tuples(st.just("lose"), partition),
    st.tuples(st.just("seek"), partition, st.floats(0, 1)),
    st.tuples(st.just("pause"), partition),
    st.tuples(st.just("resume"), partition),
    st.tuples(st.just("credit"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["block", "flow", "fence", "unfence"])),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.001, 0.02, 1.0])),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.001, 0.02])),
)


class Heard(list):
    """Everything that the stream puts on the wire, checked as it comes."""

    def __init__(self, play):
        super().__init__()
        self._play = play

    def append(self, each):
        super().append(each)
        if isinstance(each, Delivery):
            # What is committed by then is delivered by nobody else.
            assert not self._play.is_fenced or self._play.on_delivery
            self._play.reader.receive(each)
        elif isinstance(each, Heartbeat):
            assert {position.id for position in each.positions} <= set(self._play.reader.next)
        elif not isinstance(each, Started):
            self._play.reader.hear(each)


class Play:
    """A group and a reader, and the stream between them."""

    def __init__(self, world, accesses, *, on_delivery, **how):
        self.on_delivery = on_delivery
        self.reader = ToldReader()
        self.accesses = accesses
        self.given, self.asked_back = set(), set()
        self.is_fenced = False
        self.member = Member(world, credit_records=10, commit_on_delivery=on_delivery, **how)
        self.stream = self.member.stream
        object.__setattr__(self.member.form, "heard", Heard(self))

    async def act(self, kind, *arguments):
        await getattr(self, kind)(*arguments)

    async def give(self, number, share, delay_s):
        if number in self.given:
            return
        self.given.add(number)
        access = self.accesses[number]
        access.delay_s = delay_s
        place = Place(PlaceKind.OFFSET, int(share * access.log_end_offset))
        self.member.give(access, place=COMMITTED if share > 0.8 else place)

    async def revoke(self, number):
        if not self.given:
            return
        number = one_of(self.given, number)
        unheard = self.member.revoke(self.accesses[number])
        self.forget(number) if unheard else self.asked_back.add(number)

    async def release(self, number):
        if self.asked_back:
            number = one_of(self.asked_back, number)
            self.member.release(self.accesses[number])
            self.forget(number)

    async def lose(self, number):
        if self.given:
            number = one_of(self.given, number)
            self.member.lose(self.accesses[number])
            self.forget(number)

    def forget(self, number):
        self.given.discard(number)
        self.asked_back.discard(number)

    async def append(self, number, count):
        self.accesses[number].append(*[b"%d" % n * 20 for n in range(count)])

    async def seek(self, number, share):
        place = Place(PlaceKind.OFFSET, int(share * self.accesses[number].log_end_offset))
        await self.say(Seek(1, name(number), place))

    async def pause(self, number):
        access = self.accesses[number]
        before = self.member.story(access).count("Assigned")
        if access.id in self.reader.next and self.stream.flowing.is_set():
            await self.say(Pause([name(number)]))
            await asyncio.sleep(0.05)
            # One that has come back meanwhile is another one, which flows.
            if self.member.story(access).count("Assigned") == before:
                self.reader.paused.add(access.id)

    async def resume(self, number):
        self.reader.paused.discard(self.accesses[number].id)
        await self.say(Resume([name(number)]))

    async def credit(self, records):
        await self.say(Grant(records, None))

    async def block(self):
        self.stream.flowing.clear()

    async def flow(self):
        self.stream.flowing.set()

    async def fence(self):
        self.member.assigned.fence()
        self.is_fenced = True

    async def unfence(self):
        self.is_fenced = False
        self.member.assigned.unfence()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def say(self, control):
        if self.stream.reader.control._queue.full():
            self.stream.flowing.set()
        await self.stream.say(control)

    async def finish(self):
        """With leave, credit and flow everything that is given is delivered to its end."""
        self.reader.paused.clear()
        await self.flow()
        await self.unfence()
        await self.say(Resume([]))
        await self.say(Grant(100_000, None))
        await asyncio.sleep(60)
        for number, access in enumerate(self.accesses):
            mine = access.id in self.reader.mine
            assert mine == (number in self.given - self.asked_back)
            if mine and access.id not in self.reader.failed:
                assert self.reader.next[access.id] == access.log_end_offset
        for number in list(self.given):
            await self.lose(number)
        assert await self.member.assigned.settled()
        stream = self.stream.reader
        assert stream._accesses == stream._sources._cursors == self.stream.machine.partitions == {}
        assert [access.cursors for access in self.accesses] == [[]] * PARTITIONS


def one_of(numbers, at_which):
    found = sorted(numbers)
    return found[at_which % len(found)]


def name(number):
    return PartitionName("t", b"", number)


def delayed(access):
    """Let a partition take its time when it is asked next where it begins and ends."""
    known, access.delay_s = access.watermarks, 0.0

    async def watermarks():
        delay_s, access.delay_s = access.delay_s, 0.0
        await asyncio.sleep(delay_s)
        return await known()

    access.watermarks = watermarks


async def play(script, form, cold, limits, on_delivery):
    directory = FakeDirectory()
    accesses = directory.create("t", PARTITIONS, cold=cold)
    for access in accesses:
        delayed(access)
        for _ in range(4):
            access.append(*[b"x" * 40] * 5)
    deliveries = Deliveries(DeliveryBudget(12 << 20))
    async with World(directory, limits=limits) as world:
        it = Play(
            world,
            accesses,
            form=form,
            frame_bytes=200,
            on_delivery=on_delivery,
            room=Room(deliveries, "a"),
        )
        async with it.stream.running() as task:
            await asyncio.sleep(0.001)
            for each in script:
                await it.act(*each)
                if task.done():
                    task.result()
            try:
                await it.finish()
            finally:
                if task.done():
                    task.result()
            assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@settings(max_examples=120, deadline=None)
@given(
    st.lists(step, min_size=20, max_size=80),
    st.sampled_from(FORMS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1 << 30),
)
def test_each_record_comes_once_an_assignment_and_none_outside_of_it(
    script, form, cold, small, on_delivery, seed
):
    limits = SMALL if small else ReadingLimits()
    simulate(play(script, form, cold, limits, on_delivery), seed)
