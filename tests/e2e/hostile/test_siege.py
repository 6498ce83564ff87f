"""Attackers beside a client that does nothing wrong; `make torture` does it for longer, and by the clock."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.e2e.conftest import ended
from tests.e2e.hostile.bending import bend, visible
from tests.e2e.hostile.broker_under_attack import AttackedBroker
from tests.e2e.hostile.judge import Judge
from tests.e2e.hostile.siege import Terms, lay_siege

SEED = int(os.environ.get("HOSTILE_SEED", "0")) or int.from_bytes(os.urandom(4))
# Those who never read have tests of their own.
NAMES = [
    "idle_connections",
    "half_sent_requests",
    "unread_acks",
    "bombs",
    "resets",
]
REQUESTS = 150


async def test_attackers_cost_bounded_memory_and_others_are_told_the_truth(tmp_path):
    # By the clock nothing is judged here: the machine may be doing anything else.
    whatever = float("inf")
    terms = Terms(connections=300, slower_at_most=whatever, slack_ms=0.0, patience_ms=whatever)
    siege = await lay_siege(tmp_path, NAMES, 0.6, terms)
    sys.stdout.write("\n".join(siege.told))
    with ended(siege.broker):
        assert siege.failures == []
        assert len(siege.told) == len(NAMES)
        assert await asyncio.to_thread(siege.broker.term) == 0


async def test_requests_that_are_nearly_right_are_refused_in_our_words_and_do_nothing(tmp_path):
    sys.stdout.write(f"HOSTILE_SEED={SEED} makes the same requests again\n")
    judge = Judge()
    with ended(AttackedBroker(tmp_path)) as broker:
        await asyncio.to_thread(broker.start)
        await bend(broker.address, SEED, judge, lambda sent: sent >= REQUESTS)
        assert judge.complaints == []
        assert broker.hurt() == []
        assert judge.refused
        assert await visible(broker.address, judge.refused) == []
        assert judge.outcomes["OK"] > 10
        assert len(judge.outcomes) > 5
