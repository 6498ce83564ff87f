"""What the process of a member is told at its start, whichever kind of member it is."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What a member is told at its start.

    Attributes:
        bootstrap: where the brokers are, with commas.
        first: number of the one where it begins, if it chooses by itself.
        group, topic: what it reads, as whose member.
        instance: its place in the group; empty is none.
        session_ms: for how long it may be silent.
        is_numbered: whether records hold numbers that are to be written down.
        diary: where it writes.
    """

    bootstrap: str
    first: int
    group: str
    topic: str
    instance: str
    session_ms: int
    is_numbered: bool
    diary: Path

    def arguments(self) -> list[str]:
        """Return what a process is started with."""
        return [
            *("--bootstrap", self.bootstrap, "--first", str(self.first), "--group", self.group),
            *("--topic", self.topic, "--instance", self.instance),
            *("--session-ms", str(self.session_ms), "--diary", str(self.diary)),
            *(("--numbered",) if self.is_numbered else ()),
        ]


def told() -> Options:
    """Return what this process was started with."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "group", "topic", "instance"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--session-ms", type=int, required=True)
    parser.add_argument("--numbered", action="store_true", dest="is_numbered")
    parser.add_argument("--diary", type=Path, required=True)
    return Options(**vars(parser.parse_args()))
