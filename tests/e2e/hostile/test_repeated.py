"""An attack is repeated where the machine may have slowed others down, and fails where it did not."""

from __future__ import annotations

import pytest

from tests.e2e.hostile.siege import Slowed, repeated

STALL_MS = 50.0
CALM, BUSY, UNKNOWN = 3.0, 400.0, None


async def outcome(*tries):
    """Attack with these (slowed, stalled) in turn; return what came of it and how many were made."""
    left = [Slowed(["others waited"] if slowed else [], stalled) for slowed, stalled in tries]

    async def attack():
        return left.pop(0)

    judged = await repeated("floods", attack, STALL_MS)
    return judged, len(tries) - len(left)


async def test_an_attack_that_slows_nobody_is_made_once():
    judged, made = await outcome((False, BUSY), (True, CALM))
    assert (judged.told, judged.failures, made) == ([], [], 1)


async def test_others_that_are_slowed_twice_on_a_calm_machine_are_a_failure():
    judged, made = await outcome((True, CALM), (True, CALM), (False, CALM))
    assert (judged.failures, made) == (["others waited"], 2)


async def test_slowed_once_is_told_and_no_failure():
    judged, made = await outcome((True, CALM), (False, CALM))
    assert (judged.told, judged.failures, made) == (["others waited"], [], 2)


@pytest.mark.parametrize("stalled", [BUSY, UNKNOWN])
async def test_a_try_in_which_the_machine_stalled_proves_nothing(stalled):
    judged, made = await outcome((True, stalled), (True, stalled), (True, stalled), (False, CALM))
    assert (judged.failures, made) == ([], 4)
    judged, made = await outcome((True, CALM), (True, stalled), (True, stalled), (True, CALM))
    assert (judged.failures, made) == (["others waited"], 4)


async def test_a_machine_that_stalls_all_the_time_makes_it_inconclusive_which_is_a_failure():
    judged, made = await outcome(*[(True, BUSY)] * 4, (True, CALM))
    assert made == 5
    (failure,) = judged.failures
    assert failure.startswith("floods: inconclusive: ")
    assert "in 4 of them the machine itself stalled (400 ms" in failure
