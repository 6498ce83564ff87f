"""A group whose members and brokers are killed and paused does its work; `make groups-chaos` does it for longer."""

from __future__ import annotations

import os
import sys

import pytest

from tests.cluster.group_chaos.run import Shape, chaos
from tests.cluster.proof.members import logged

SEED = int(os.environ.get("PROOF_SEED", "0")) or int.from_bytes(os.urandom(4))
SECONDS = 8.0
RATE = 300
pytestmark = pytest.mark.timeout(240)


async def test_a_group_comes_through_the_deaths_and_pauses_of_everybody(shared_cluster, tmp_path):
    sys.stdout.write(f"PROOF_SEED={SEED} makes the same choices again\n")
    found = await chaos(shared_cluster, tmp_path, "hurt", Shape(SECONDS, RATE), SEED)
    assert not found.anomalies
    assert found.faults
    assert not logged(shared_cluster)
