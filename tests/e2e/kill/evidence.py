"""Whether a run has put anything to the test: what was under way when the broker died, and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.e2e.kill.history import (
    Began,
    Committed,
    Dumped,
    Event,
    Killed,
    Outcome,
    PowerCut,
    Recognised,
    Returned,
    Written,
)


@dataclass
class Evidence:
    """Counts over a history.

    Attributes:
        kills: by how.
        cuts: rounds in which the power was cut, by kind.
        biting: those of them in which that has taken something of the write-ahead log.
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
    cuts: dict[str, set[int]] = field(default_factory=dict)
    biting: dict[str, set[int]] = field(default_factory=dict)
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
        cuts = "".join(
            f"{kind}_rounds={len(rounds)} of_these_biting={len(self.biting[kind])} "
            for kind, rounds in self.cuts.items()
        )
        outcomes = " ".join(f"{o.name.lower()}={self.outcomes[o]}" for o in Outcome)
        return (
            f"{kills} {cuts}unanswered_at_kills={self.unanswered} {outcomes} "
            f"unknown_but_written={self.survived} recognised={self.recognised} "
            f"unpromised_lost={self.vanished} group_lives={self.lives} commits={self.commits} "
            f"readings={self.readings} logged={self.logged}"
        )

    def missing(self) -> Iterator[str]:
        """Say what a run has not put to the test, so that it proves nothing."""
        if not self.unanswered:
            yield "nothing was unanswered at any kill"
        if not self.recognised:
            yield "no batch that was sent again was recognised as written"
        if not self.lives or not self.commits:
            yield "no group went on from a commit"
        for outcome in (Outcome.ACKED, Outcome.REFUSED):
            if not self.outcomes[outcome]:
                yield f"no record was {outcome.value}"
        for kind, rounds in self.biting.items():
            if not rounds:
                yield f"no power cut of the kind {kind} has taken anything"


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
            case PowerCut():
                found.cuts.setdefault(event.kind, set()).add(event.number)
                biting = found.biting.setdefault(event.kind, set())
                if event.lost:
                    biting.add(event.number)
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
