"""A broker that is killed under load keeps what it has promised; `make torture` does it for longer."""

from __future__ import annotations

import os
import sys

import pytest

from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.checker import check
from tests.e2e.kill.evidence import weigh
from tests.e2e.kill.history import Outcome
from tests.e2e.kill.rig import Rig

# One of each kind: drained, killed under load, while starting, while draining.
ROUNDS = 4
SEED = int(os.environ.get("KILL_SEED", "0")) or int.from_bytes(os.urandom(4))


@pytest.mark.timeout(180)
async def test_a_killed_broker_keeps_its_promises(tmp_path):
    sys.stdout.write(f"KILL_SEED={SEED} makes the same choices again\n")
    rig = Rig(tmp_path, SEED)
    try:
        events = await rig.run(ROUNDS)
    finally:
        rig.broker.stop()
        sys.stdout.write(rig.broker.logs())
    evidence = weigh(events)
    sys.stdout.write(f"{evidence}\n")
    assert not list(summary(check(events)))
    # It was put to the test: work was under way, and people had to ask again.
    assert evidence.kills.total() >= ROUNDS
    assert evidence.unanswered
    assert evidence.recognised
    assert evidence.lives
    assert evidence.commits
    assert all(evidence.outcomes[outcome] for outcome in Outcome)
