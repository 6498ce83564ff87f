"""Everybody in a soak does their work, for some seconds; `python -m tests.e2e.soak` does it for longer."""

from __future__ import annotations

import os
import sys

from tests.e2e.soak.judge import verdicts
from tests.e2e.soak.plot import draw
from tests.e2e.soak.rig import Rig

SECONDS = 6.0
SEED = int(os.environ.get("SOAK_SEED", "0")) or int.from_bytes(os.urandom(4))
# What everybody gets done within these seconds, also on a busy machine.
DONE = {
    "administrator's rounds",
    "bytes read from the past",
    "chunks",
    "clients that came and went",
    "members of a group that came and went",
    "readings of the past",
    "records read by a group",
    "records read by the one that keeps up",
    "subscriptions left in the middle",
    "topics made and deleted",
    "unary calls",
}


async def test_a_broker_under_mixed_load_loses_nothing_and_warns_of_nothing(tmp_path):
    sys.stdout.write(f"SOAK_SEED={SEED} makes the same choices again\n")
    rig = Rig(tmp_path, SEED, sample_every_s=0.5)
    try:
        world = await rig.run(SECONDS)
    finally:
        rig.broker.stop()
        sys.stdout.write(rig.broker.logs())
    assert not world.failures
    assert set(world.done) >= DONE
    assert world.done["records read by the one that keeps up"] >= world.ledger.acknowledged > 1_000
    assert not verdicts(rig.samples)
    last = rig.samples[-1]
    # Each figure is taken from where it is said to be.
    assert 30 < last.rss_mib < 2_000
    assert 10 < last.handles < 2_000
    assert last.threads > 3
    # The kernel counts in hundredths of a second, and the last interval may be shorter.
    assert max(sample.cpu for sample in rig.samples) > 0
    assert last.disk_mib >= last.wal_mib > 0
    assert last.p50_ms is not None
    assert last.p99_ms >= last.p50_ms > 0
    assert last.load_tasks > 10
    assert last.load_cpu > 0
    assert last.cores >= 1
    heard = [sample for sample in rig.samples if sample.sync_ms is not None]
    assert len(heard) > 3
    assert all(sample.sync_ms > 0 for sample in heard)
    assert any(sample.stall_worst_ms >= sample.stall_mean_ms > 0 for sample in heard)
    assert "<svg" in draw(rig.samples, "seconds")
