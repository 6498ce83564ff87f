"""A leader whose own data is damaged: it finds out, and others learn that it leads no more."""

from __future__ import annotations

from tests.runtime.replication_world import ID, ready


def damage(broker, at):
    """Flip a bit of a stored batch, wherever it stands."""
    for image in (broker.store._live, broker.store._durable):
        stored = image.partitions[ID]
        data = bytearray(stored.batches[at])
        data[8] ^= 1
        stored.batches[at] = bytes(data)
    broker.replica.log.tail.clear()


def test_a_leader_finds_its_own_damage_where_a_new_follower_of_the_epoch_cannot_read():
    """Behind more than it looks at in one go, and nothing was acknowledged in this epoch."""
    world = ready(min_isr=1)
    world.shrink(1, 2)
    for _ in range(12):
        world[1].append(bytes(900_000))
        world.run()
    end = world[3].machine.log_end
    world.broken |= {(1, 3), (3, 1)}
    for _ in range(2):
        world[1].append(bytes(900_000))
        world.run()
    assert (end, world[2].machine.log_end, world[3].machine.log_end) == (12, 14, 12)
    world[1].crash()
    world.elect(2)
    world.broken.clear()
    damage(world[2], 12)
    # The follower's acceptance of the epoch is on its disk before the first push comes.
    world.learn(3)
    world[3].sync()
    world.learn(2)
    for _ in range(10):
        world.tick()
        world.run()
    assert world[3].machine.log_end == 12
    assert world[2].replica.why_stopped is not None
