"""Random histories of three replicas: crashes, elections, lost messages, outcomes that nobody knows.

Everything is seeded; what must hold is checked after every step on what is really on the disks, and
in the end, when everything works again, all logs must be the same.
"""

from __future__ import annotations

import random

import pytest

from riverrun_server.core.cluster.values import Replica
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX
from riverrun_server.core.producers import ProducersSnapshot
from riverrun_server.core.replication.messages import Restart
from riverrun_server.runtime.replication.outbox import Outcome
from riverrun_server.wire.snapshots import encode_snapshot
from tests.runtime.replication_world import ID, World, ready

_WEIGHTS = {
    "append": 5,
    "deliver": 10,
    "sync": 5,
    "tick": 3,
    "learn": 5,
    "decide": 2,
    "crash": 1,
    "start": 2,
    "calm": 1,
    "reconnect": 1,
    "elect": 2,
    "trim": 1,
    "wipe": 1,
}


class History:
    """One random history of a world, and what it must not break."""

    def __init__(self, seed: int, *, min_isr: int = 2, lossy: bool = False) -> None:
        self.dice = random.Random(seed)
        self.lossy = lossy
        self.world = World(min_isr=min_isr, allows_loss=lossy)
        self.sent = 0
        self.highest = 0
        self.lost = False
        self.appends = []

    # What happens.

    def step(self) -> None:
        world, dice = self.world, self.dice
        before = {each.id: self.watermark(each) for each in world.brokers.values() if each.up}
        broker = world[dice.randint(1, 3)]
        match dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]:
            case "append":
                self.append()
            case "deliver":
                self.deliver()
            case "sync":
                if broker.up:
                    self.sync(broker)
            case "tick":
                world.tick(dice.choice([0.3, 1.0, 4.0]))
            case "learn":
                world.learn(broker.id)
            case "decide":
                self.decide()
            case "crash":
                self.crash(broker)
            case "start":
                for each in world.brokers.values():
                    if not each.up:
                        each.start()
            case "calm":
                world.settle(1)
            case "reconnect":
                self.reconnect()
            case "elect":
                self.elect()
            case "trim":
                self.trim()
            case "wipe":
                self.wipe(broker)
        world.collect()
        self.check(before)

    def append(self) -> None:
        """Have whoever believes to lead append."""
        leaders = [each for each in self.world.brokers.values() if self.leads(each)]
        if not leaders:
            return
        leader, value = self.dice.choice(leaders), b"%d" % self.sent
        self.sent += 1
        # Each batch is a producer's first, so that every log's producers tell what is in it.
        answers = leader.append(value, *[value] * self.dice.randrange(2), producer_id=self.sent)
        self.appends.append((leader.machine.leader_epoch, value, answers))

    def trim(self) -> None:
        """Have a leader delete some of what is committed."""
        for leader in self.world.brokers.values():
            if self.leads(leader):
                state = leader.machine.state
                leader.replica.trim(self.dice.randint(state.log_start_offset, state.high_watermark))

    def deliver(self) -> None:
        links = [link for link, queue in self.world.links.items() if queue]
        if links:
            self.world.deliver(self.dice.choice(links), self.dice.randint(1, 4))

    def sync(self, broker) -> None:
        """A sync takes its time: what happens meanwhile is not what it proved."""
        points = broker.replicas.sync_points()
        broker.store.sync()
        for _ in range(self.dice.randrange(3)):
            self.dice.choice([self.append, self.deliver])()
        broker.replicas.synced(points, self.world.now)

    def decide(self) -> None:
        outcome, written = self.dice.choice(
            [
                (None, None),
                (None, None),
                (Outcome.UNKNOWN, None),
                (Outcome.UNKNOWN, False),
                (Outcome.REFUSED, False),
            ]
        )
        self.world.decide(outcome, written=written)

    def crash(self, broker) -> None:
        if broker.up and sum(each.up for each in self.world.brokers.values()) > 1:
            broker.crash(self.dice.randint(0, broker.store.unsynced_writes))
            self.cut(broker.id)

    def wipe(self, broker) -> None:
        """Lose a disk, where somebody who may be elected is left, whatever is still under way."""
        value = self.world.value
        left = [each for each in self.fit((*value.isr, *value.elr)) if each.broker != broker.id]
        if broker.up and left and not self.world.proposals and self.dice.random() < 0.3:
            broker.crash()
            broker.wipe()
            self.cut(broker.id)

    def fit(self, replicas):
        """Return those whose life goes on."""
        return [each for each in replicas if each == self.life(each.broker)]

    def cut(self, broker: int) -> None:
        for link in list(self.world.links):
            if broker in link:
                del self.world.links[link]
        for other in self.world.brokers.values():
            if other.up:
                other.replicas.disconnected(broker)

    def reconnect(self) -> None:
        """A stream breaks; messages of the old one may arrive after those of the new one."""
        one, other = self.dice.sample([1, 2, 3], 2)
        world = self.world
        late = world.links.pop((one, other), []) if self.dice.random() < 0.5 else []
        if world[other].up:
            world[other].replicas.disconnected(one)
        if world[one].up:
            world[one].replicas.connected(other, world.now)
            world.collect()
        if late and self.dice.random() < 0.7:
            world.links.setdefault((one, other), []).extend(late)

    def elect(self) -> None:
        """Elect as the controller may: of the ISR, else of the ELR, else with loss where allowed."""
        world = self.world
        value = world.value
        current = world[value.leader]
        # A leader that lives is replaced at times: its lease ran out.
        if current.up and self.dice.random() < 0.6 and not self.deserted(value):
            return
        for among in (value.isr, value.elr):
            up = [each.broker for each in self.fit(among) if world[each.broker].up]
            if up:
                leader = self.dice.choice(up)
                self.promote(leader)
                return
        up = [each for each in value.replicas if world[each].up]
        if self.lossy and up and self.dice.random() < 0.3:
            leader = self.dice.choice(up)
            world.elect(leader, isr=[self.life(leader)], skip=EPOCHS_LOST_MAX, elr=())
            self.lost = True

    def promote(self, leader: int) -> None:
        """As partition changes do: those who are down leave, eligible where too few remain."""
        world, value = self.world, self.world.value
        isr = [each for each in value.isr if world[each.broker].up or self.dice.random() < 0.3]
        isr = self.fit(isr)
        here = self.life(leader)
        isr = isr if here in isr else [*isr, here]
        elr = ()
        if len(isr) < value.min_isr:
            elr = tuple(self.fit(each for each in (*value.elr, *value.isr) if each not in isr))
        world.elect(leader, isr=isr, elr=elr)

    def deserted(self, value) -> bool:
        """Whether the leader named is another process than the one that runs."""
        return self.world[value.leader].replicas.broker_epoch != value.leader_broker_epoch

    def life(self, broker: int):
        return Replica(broker, self.world[broker].incarnation)

    # What must hold.

    def leads(self, broker) -> bool:
        found = broker.replicas.find(ID) if broker.up else None
        return found is not None and found.leader is not None

    def watermark(self, broker):
        found = broker.replicas.find(ID) if broker.up else None
        if found is None or found.leader is None:
            return None
        core = found.leader.core
        return core.leader_epoch, found.log.machine.high_watermark, core.insync.is_too_small

    def durable(self, broker) -> int:
        stored = broker.store._durable.partitions.get(ID)
        return stored.state.log_end_offset if stored is not None else 0

    def check(self, before) -> None:
        for broker in self.world.brokers.values():
            now = self.watermark(broker)
            if now is None:
                continue
            was = before.get(broker.id)
            assert broker.replica.why_stopped is None, broker.replica.why_stopped
            if was is None or was[0] != now[0] or now[1] == was[1]:
                continue
            assert now[1] > was[1], "the high watermark went back"
            assert not (was[2] and now[2]), "the high watermark moved without enough in sync"
            self.check_committed(broker, now[1])
        for broker in self.world.brokers.values():
            if broker.up and broker.replicas.find(ID) is not None:
                state = broker.machine.state
                durable = broker.machine.durable_end
                # A log that was thrown away begins, empty, where nothing is durable yet.
                assert state.high_watermark <= max(durable, state.log_start_offset)
                assert durable <= state.log_end_offset
                assert broker.machine.durable_end <= self.durable(broker)

    def check_committed(self, leader, watermark: int) -> None:
        """Everybody who may be elected has it on the disk: as the leader knows it, and in truth."""
        core = leader.replica.leader.core
        members = set(core.insync.maximal)
        value = self.world.value
        if value.leader_epoch == core.leader_epoch:
            members |= {*value.isr, *value.elr}
        for member in self.fit(members):
            assert self.durable(self.world[member.broker]) >= watermark, (member, watermark)
        assert len(members) >= self.world.min_isr
        if not self.lost:
            self.highest = max(self.highest, watermark)

    # The end.

    def heal(self) -> None:
        world = self.world
        for broker in world.brokers.values():
            if not broker.up:
                broker.start()
        world.learn()
        for _ in range(40):
            value = world.value
            if self.deserted(value):
                alive = [each.broker for each in self.fit((*value.isr, *value.elr))]
                self.promote(alive[0])
                world.learn()
            world.settle(1)
            ends = {each.machine.log_end for each in world.brokers.values()}
            if len(self.fit(world.value.isr)) == 3 and len(ends) == 1:
                break
        world.settle(2)

    def check_end(self) -> None:
        world = self.world
        assert all(each.replica.why_stopped is None for each in world.brokers.values())
        # A leader that was elected before it heard of a trim still has what others deleted.
        start = max(each.machine.log_start for each in world.brokers.values())
        one, two, three = (
            [batch for batch in each.log() if batch[0] >= start] for each in world.brokers.values()
        )
        assert one == two == three
        assert {each.broker for each in world.value.isr} == {1, 2, 3}
        leader = world[world.value.leader]
        assert leader.machine.high_watermark == leader.machine.log_end
        if not self.lost:
            assert leader.machine.log_end >= self.highest
            where = {base: (epoch, data) for base, epoch, data in leader.log()}
            for epoch, value, answers in self.appends:
                for answer in answers:
                    if answer.error is None and answer.base_offset >= leader.machine.log_start:
                        assert where[answer.base_offset][0] == epoch
                        assert value in where[answer.base_offset][1]
            self.check_producers()

    def check_producers(self) -> None:
        """What is known of producers is what the log says, whatever way it went."""
        known = [each.producers() for each in self.world.brokers.values()]
        assert known[0] == known[1] == known[2]
        for broker in self.world.brokers.values():
            broker.replica.log.recover()
        assert [each.producers() for each in self.world.brokers.values()] == known


def play(seed: int, steps: int = 250, **how) -> History:
    history = History(seed, **how)
    for _ in range(steps):
        history.step()
    history.heal()
    history.check_end()
    return history


@pytest.mark.parametrize("seed", range(12))
def test_three_replicas_of_any_history_end_with_the_same_log(seed):
    play(seed, min_isr=seed % 2 + 1)


@pytest.mark.parametrize("seed", range(6))
def test_also_where_elections_may_lose_data(seed):
    play(seed, min_isr=1, lossy=True)


def test_a_log_without_records_that_ends_inside_a_batch_of_the_leader_begins_anew():
    """What it began with was lost in an election; the leader's log is another one there."""
    world = ready()
    world[1].append(b"a", b"b", b"c")
    world[1].append(b"d", b"e", b"f", b"g")
    world.run()
    world[1].crash()
    nobody = encode_snapshot(ProducersSnapshot(5, ()))
    world[3].replica.log.restart(Restart(ID, 1, 5, (), (5, nobody)))
    world.elect(2, skip=EPOCHS_LOST_MAX, isr=world.value.isr[1:2])
    world.learn()
    world.run()
    assert world[3].log() == world[2].log()
    assert world[3].machine.log_end == 7
