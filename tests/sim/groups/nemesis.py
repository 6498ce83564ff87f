"""Faults of consumer groups: what goes wrong, when, and whether it did harm."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

KINDS: dict[str, Callable[[Any, random.Random], bool]] = {}
"""Each returns whether it did harm."""


class Fault(NamedTuple):
    """One fault: what, when, and what fixes everything else about it."""

    at_s: float
    kind: str
    seed: int


def plan(seed: int, kinds: tuple[str, ...], mean_gap_s: float, faults_s: float) -> list[Fault]:
    """Return the faults of a seed."""
    dice = random.Random(f"faults of {seed}")
    faults, at_s = [], 1.0
    while (at_s := at_s + dice.expovariate(1 / mean_gap_s)) < faults_s:
        faults.append(Fault(round(at_s, 4), dice.choice(kinds), dice.randrange(1 << 30)))
    return faults


def _fault(act: Callable[[Any, random.Random], bool]) -> Callable[[Any, random.Random], bool]:
    KINDS[act.__name__] = act
    return act


def _some(dice: random.Random, of: list[Any]) -> Any:
    return dice.choice(of) if of else None


# Brokers.


@_fault
def broker_killed(cluster: Any, dice: random.Random) -> bool:
    """A broker ends, and another process of it begins after a while."""
    broker = _some(dice, cluster.running())
    if broker is None or len(cluster.running()) < 2:
        return False
    cluster.kill(broker, restart_s=dice.uniform(0.2, 2.0))
    return True


@_fault
def broker_paused(cluster: Any, dice: random.Random) -> bool:
    """A broker stands still, so long that others lead meanwhile, or not."""
    broker = _some(dice, cluster.running())
    if broker is None:
        return False
    cluster.pause(broker, dice.choice((0.1, 0.5, 1.5, 3.0)), elect=dice.random() < 0.5)
    return True


@_fault
def broker_cut_off(cluster: Any, dice: random.Random) -> bool:
    """A broker reaches no other one, and does not know that another is elected; its clients reach it."""
    broker = _some(dice, cluster.running())
    if broker is None or len(cluster.running()) < 2:
        return False
    cluster.cut_off(broker, dice.choice((0.3, 1.0, 3.0, 5.0)))
    return True


@_fault
def broker_drained(cluster: Any, dice: random.Random) -> bool:
    """A broker ends its streams in order, and then itself."""
    broker = _some(dice, cluster.running())
    if broker is None or len(cluster.running()) < 2:
        return False
    broker.process.run(broker.draining.set)
    cluster.world.loop.call_later(0.3, cluster.kill, broker, 0.5)
    return True


@_fault
def links_cut(cluster: Any, dice: random.Random) -> bool:
    """The streams between two brokers end; what was under way is in doubt."""
    broker = _some(dice, cluster.running())
    if broker is None or not broker.links.links:
        return False
    for link in broker.links.links.values():
        link.cut()
    return True


@_fault
def clock_set(cluster: Any, dice: random.Random) -> bool:
    """Somebody sets the wall clock of a broker."""
    broker = _some(dice, cluster.running())
    if broker is None:
        return False
    broker.clock.leap_ms += dice.choice((-60_000, -3_000, -800, 800, 3_000, 60_000))
    return True


# The offsets topic.


@_fault
def leader_moved(cluster: Any, dice: random.Random) -> bool:
    """Another broker is elected, in the middle of everything."""
    home = dice.choice(cluster.homes)
    return cluster.elect(home, dice)


@_fault
def leader_elected_again(cluster: Any, dice: random.Random) -> bool:
    """The same broker is elected in another epoch."""
    home = dice.choice(cluster.homes)
    broker = cluster.brokers.get(home.leader_id)
    if broker is None or not broker.process.runs or cluster.is_cut_off(broker.process):
        return False
    home.elect(broker)
    return True


@_fault
def replicas_scarce(cluster: Any, dice: random.Random) -> bool:
    """Too few replicas are in sync for a while: appends are refused, and nothing is written."""
    home = dice.choice(cluster.homes)
    if home.leader is None:
        return False
    home.leader.scarce_until = cluster.world.loop.time() + dice.choice((0.2, 1.0, 4.0))
    return True


# Members.


@_fault
def member_killed(cluster: Any, dice: random.Random) -> bool:
    """A member ends, and another process comes in its place after a while."""
    client = _some(dice, cluster.members())
    if client is None:
        return False
    client.kill()
    cluster.replace(client, dice.choice((0.05, 0.5, 3.0)))
    return True


@_fault
def member_paused(cluster: Any, dice: random.Random) -> bool:
    """A member stands still: it reads nothing, and says nothing."""
    client = _some(dice, cluster.members())
    if client is None:
        return False
    client.process.pause()
    cluster.world.loop.call_later(dice.choice((0.3, 1.2, 3.0)), client.process.resume)
    return True


@_fault
def stream_lost(cluster: Any, dice: random.Random) -> bool:
    """A member's connection is lost; its broker notices late."""
    client = _some(dice, cluster.members())
    if client is None or client.call is None:
        return False
    client.lose_stream()
    return True


@_fault
def member_left(cluster: Any, dice: random.Random) -> bool:
    """A member leaves for good, and another one comes."""
    client = _some(dice, cluster.members())
    if client is None:
        return False
    client.leave(temporary=False)
    cluster.replace(client, dice.choice((0.05, 0.5, 3.0)))
    return True


@_fault
def member_restarted(cluster: Any, dice: random.Random) -> bool:
    """A member with an instance id leaves for a moment and comes back."""
    client = _some(dice, [each for each in cluster.members() if each.instance_id])
    if client is None:
        return False
    client.leave(temporary=True)
    cluster.replace(client, dice.choice((0.05, 0.4, 0.8, 4.0)))
    return True


@_fault
def member_twice(cluster: Any, dice: random.Random) -> bool:
    """Another process comes with the instance id of one that is at work, and goes again."""
    client = _some(dice, [each for each in cluster.members() if each.instance_id])
    if client is None:
        return False
    other = cluster.add_member(client.group_id, client.instance_id)
    cluster.world.loop.call_later(dice.uniform(0.5, 2.0), cluster.kill_member, other)
    return True


@_fault
def member_more(cluster: Any, dice: random.Random) -> bool:
    """One more member comes, and ends after a while."""
    other = cluster.add_member(dice.choice(cluster.groups), "")
    cluster.world.loop.call_later(dice.uniform(0.5, 4.0), cluster.kill_member, other)
    return True


@_fault
def member_slow(cluster: Any, dice: random.Random) -> bool:
    """A member gives nothing up for a while, whatever it is asked."""
    client = _some(dice, cluster.members())
    if client is None:
        return False
    client.gives_up_late_s = dice.choice((0.8, 2.0, 6.0))
    cluster.world.loop.call_later(3.0, setattr, client, "gives_up_late_s", 0.0)
    return True


# Operators.


@_fault
def topic_created(cluster: Any, dice: random.Random) -> bool:
    """There is another topic that matches everybody's pattern."""
    if len(cluster.topics.names()) >= 4:
        return False
    cluster.topics.create(f"t{len(cluster.topics.names())}", dice.randint(1, 3))
    cluster.topics_are_new()
    return True


@_fault
def topic_grown(cluster: Any, dice: random.Random) -> bool:
    """A topic gets more partitions."""
    name = dice.choice(cluster.topics.names())
    size = cluster.topics.sizes()[name]
    if size >= 5:
        return False
    cluster.topics.grow(name, size + dice.randint(1, 2))
    cluster.topics_are_new()
    return True


@_fault
def offsets_reset(cluster: Any, dice: random.Random) -> bool:
    """Somebody makes a group go on elsewhere."""
    broker = _some(dice, cluster.running())
    if broker is None:
        return False
    broker.process.spawn(cluster.reset(broker, dice), "reset")
    return True


@_fault
def offsets_read(cluster: Any, dice: random.Random) -> bool:
    """Somebody asks for the offsets of a group."""
    broker = _some(dice, cluster.running())
    if broker is None:
        return False
    broker.process.spawn(cluster.read(broker, dice.choice(cluster.groups)), "read")
    return True


@_fault
def member_removed(cluster: Any, dice: random.Random) -> bool:
    """An operator throws a member out."""
    broker, client = _some(dice, cluster.running()), _some(dice, cluster.members())
    if broker is None or client is None or client.call is None or not client.call.member_id:
        return False
    broker.process.spawn(cluster.remove(broker, client), "remove")
    return True
