"""The assignor that a group has chosen by its name."""

from __future__ import annotations

from riverrun_server.core.groups.assignment import range as by_range
from riverrun_server.core.groups.assignment import uniform
from riverrun_server.core.groups.assignment.values import Assign
from riverrun_server.core.groups.members import Assignor

_ASSIGNORS: dict[Assignor, Assign] = {
    Assignor.UNIFORM: uniform.assign,
    Assignor.RANGE: by_range.assign,
}


def choose(assignor: Assignor) -> Assign:
    """Return what shares the partitions out; for the contract see Assign."""
    return _ASSIGNORS[assignor]
