"""Whether a run has put anything to the test: what was under way when the broker died, and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.kill.history import (
    Began,
    Committed,
    Dumped,
    Event,
    Killed,
    Outcome,
    Recognised,
    Returned,
    Written,
)


@dataclass
class Evidence:
    """Counts over a history.

    Attributes:
        kills: by how.
        unanswered: records sent and not answered at all kills together.
        outcomes: records by what their producers were told.
        survived: records of unknown outcome that are in the log.
        recognised: batches that were sent again and found to be written already.
        vanished: records acknowledged without a promise (acks "none") that a crash has taken.
        lives: times that a group has gone on from its committed position.
        commits: positions that were stored.
        readings: records that readers were given.
        logged: records in the logs.
    """

    kills: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    survived: int = 0
    recognised: int = 0
    vanished: int = 0
    lives: int = 0
    commits: int = 0
    readings: int = 0
    logged: int = 0

    def __str__(self) -> str:
        """Say all on one line, as NAME=NUMBER."""
        kills = " ".join(f"killed_{how.replace(' ', '_')}={n}" for how, n in self.kills.items())
        outcomes = " ".join(f"{o.name.lower()}={self.outcomes[o]}" for o in Outcome)
        return (
            f"{kills} unanswered_at_kills={self.unanswered} {outcomes} "
            f"unknown_but_written={self.survived} recognised={self.recognised} "
            f"unpromised_lost={self.vanished} group_lives={self.lives} commits={self.commits} "
            f"readings={self.readings} logged={self.logged}"
        )


def weigh(events: Sequence[Event]) -> Evidence:
    """Count what a history has in it."""
    found = Evidence()
    logged = {value for event in events if isinstance(event, Dumped) for _, value in event.records}
    found.logged = len(logged)
    for event in events:
        match event:
            case Killed():
                found.kills[event.how] += 1
                found.unanswered += sum(event.unanswered.values())
            case Written():
                found.outcomes[event.outcome] += 1
                there = event.value in logged
                found.survived += there and event.outcome is Outcome.UNKNOWN
                unpromised = event.outcome is Outcome.ACKED and not event.durable
                found.vanished += unpromised and not there
            case Recognised():
                found.recognised += 1
            case Began(group=str()):
                found.lives += 1
            case Committed(stored=True):
                found.commits += 1
            case Returned():
                found.readings += len(event.records)
            case _:
                pass
    return found
