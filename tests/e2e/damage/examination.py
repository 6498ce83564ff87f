"""Starts a broker on damaged data and goes after every promise that was made about that data.

Whatever was damaged: what can be read is a beginning of what was acknowledged, what is missing is
said to be missing, what is offline comes back by the very command that its error names, and who had
read further than what is left is told so.
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from riverrun.v1.errors_pb2 import (
    ERROR_REASON_COORDINATOR_LOADING,
    ERROR_REASON_CORRUPT_DATA,
    ERROR_REASON_LOG_TRUNCATED,
    ERROR_REASON_PARTITION_OFFLINE,
    ERROR_REASON_TOPIC_NOT_FOUND,
    Error,
)
from riverrun_server.cli import recover
from riverrun_server.config.load import load
from riverrun_server.recover import accept_loss
from tests.e2e.broker_process import SERVER, BrokerProcess
from tests.e2e.damage.calls import Calls, Found, Place, calling
from tests.e2e.damage.site import ACCEPTING, FSYNC, OPTIONS, PLACES, RELAXED, Told

_OFFSETS = Place("__consumer_offsets", 0)
_COMMAND = re.compile(r"riverrun-server (recover .* --accept-loss)")
_LOSS_IS_LOGGED = '"intact": false'
_RECOVER_TIMEOUT_S = 200.0
# Offsets looked at one by one, in each partition.
_SAMPLES = 12


@dataclass
class Report:
    """What became of damaged data.

    Attributes:
        refused: what the broker said instead of starting, or "".
        loss: whether it said that something synced is gone.
        offline: the command that brings a partition back.
        gone: places whose topic is not known any more.
        served: how many records were read before anything was accepted.
        kept: how many there are in the end.
        failures: promises that are broken.
    """

    refused: str = ""
    loss: bool = False
    offline: dict[Place, str] = field(default_factory=dict)
    gone: set[Place] = field(default_factory=set)
    served: dict[Place, int] = field(default_factory=dict)
    kept: dict[Place, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Say it on one line."""
        if self.refused:
            return f"refused: {self.refused[:200]}"
        parts = [
            f"loss={self.loss}",
            f"offline={','.join(map(str, self.offline)) or '-'}",
            f"gone={','.join(map(str, self.gone)) or '-'}",
            *(f"{place}={self.served.get(place)}>{n}" for place, n in self.kept.items()),
        ]
        return " ".join(parts)


class Examination:
    """One examination.

    Args:
        told: what was acknowledged before the damage.
        folder: has the damaged data directory as `data`.
        unclean: whether the broker had been killed, so that relaxed topics wait for an operator.
        seed: of what is written and looked at.
        twice: whether the broker is killed in the end, and everything read once more.
        alone: whether the first command that the broker tells is run in a process of its own.
    """

    def __init__(
        self,
        told: Told,
        folder: Path,
        *,
        unclean: bool,
        seed: int,
        twice: bool = True,
        alone: bool = True,
    ) -> None:
        self._told = told
        self._now = told.copy()
        self._unclean = unclean
        self._twice = twice
        self._alone = alone
        self._dice = random.Random(seed)
        self.broker = BrokerProcess(folder, *OPTIONS)
        self.report = Report()

    def run(self) -> Report:
        """Do all of it; the broker is ended."""
        try:
            if self._started():
                self._look_first()
                if self.report.offline:
                    assert self.broker.term() == 0, self.broker.logs()
                    self._accept()
                    self.broker.restart()
                self._look_again()
                if self._twice:
                    self.broker.kill9()
                    self.broker.restart()
                    self._look_after_a_kill()
        except Exception as error:  # whatever a broker on damaged data does not answer
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self.broker.stop()
        if "Traceback" in self.broker.logs():
            self._fail("the broker printed a traceback")
        return self.report

    def _fail(self, what: str) -> None:
        self.report.failures.append(what)

    # The start.

    def _started(self) -> bool:
        try:
            self.broker.start()
        except AssertionError:
            logs = self.broker.logs()
            lines = [line for line in logs.splitlines() if line.startswith("riverrun-server: ")]
            if self.broker.exit_code != 1 or len(lines) != 1 or "Traceback" in logs:
                self._fail(
                    f"no start, exit code {self.broker.exit_code}, expected 1 and one line: {logs}"
                )
            elif not re.search(r"restore|backup|recover|move", lines[0]):
                self._fail(f"no start, and nothing that can be done about it: {lines[0]}")
            self.report.refused = " ".join(lines) or "nothing was said"
            return False
        self.report.loss = _LOSS_IS_LOGGED in self.broker.logs()
        return True

    def _look_first(self) -> None:
        """Read everything that can be read; note what is offline."""
        with calling(self.broker) as calls:
            for place in PLACES:
                found = calls.read(place)
                self._check_prefix(place, found, self._told.values[place])
                self.report.served[place] = len(found.records)
                if found.error is None:
                    self._check_complete(place, len(found.records))
                else:
                    self._note_offline(calls, place, found.error)
            self._look_at_commits(calls)

    def _check_prefix(
        self, place: Place, found: Found, values: list[bytes], begin: int = 0
    ) -> None:
        for at, (offset, value) in enumerate(found.records, begin):
            if offset != at:
                self._fail(f"{place}: {offset} was served where {at} should be: a hole")
                return
            if at >= len(values) or value != values[at]:
                self._fail(f"{place}: offset {offset} has another value: {value[:30]!r}")
                return

    def _check_complete(self, place: Place, served: int) -> None:
        short = served < len(self._told.values[place])
        if place in RELAXED and self._unclean:
            self._fail(f"{place} is served after a kill though nobody can tell what it lacks")
        elif place in FSYNC and self.report.loss:
            self._fail(f"{place} is served though the store has lost data")
        elif short and place not in ACCEPTING:
            self._fail(f"{place}: {served} of {len(self._told.values[place])}, and nobody is told")

    def _note_offline(self, calls: Calls, place: Place, error: Error) -> None:
        if error.reason == ERROR_REASON_TOPIC_NOT_FOUND:
            self.report.gone.add(place)
            if not self.report.loss:
                self._fail(f"{place} is not known any more, and nobody is told")
            return
        if error.reason == ERROR_REASON_CORRUPT_DATA:
            refused = calls.produce(place, [b"never"])
            if isinstance(refused, int):
                self._fail(f"{place} takes records behind its damage")
                return
            error = refused
        command = _COMMAND.search(error.message)
        if error.reason != ERROR_REASON_PARTITION_OFFLINE or command is None:
            self._fail(f"{place} is not offline with a way back: {error}")
            return
        self.report.offline[place] = command[1]
        for what, told in (
            ("reading", calls.read(place).error),
            ("Subscribe", calls.subscribe(place, 0, None).error),
            ("Fetch", calls.fetch(place, 0).error),
            ("producing", calls.produce(place, [b"never"])),
        ):
            if not isinstance(told, Error) or told.reason != ERROR_REASON_PARTITION_OFFLINE:
                self._fail(f"{place} is offline, and {what} gets {told}")

    def _look_at_commits(self, calls: Calls) -> None:
        """What a group goes on from is what it committed last, or it is told that this is unknown."""
        for place, commits in self._told.commits.items():
            if place in self.report.gone or not commits:
                continue
            committed = calls.committed(place)
            if isinstance(committed, Error):
                command = _COMMAND.search(committed.message)
                if committed.reason == ERROR_REASON_COORDINATOR_LOADING and command:
                    self.report.offline[_OFFSETS] = command[1]
                else:
                    self._fail(f"no commit of {place}, and no way back: {committed}")
            elif committed != commits[-1]:
                self._fail(f"commit of {place} is {committed}, last was {commits[-1]}")

    # The way back.

    def _accept(self) -> None:
        """Run the commands as the broker has told them."""
        for number, (place, command) in enumerate(self.report.offline.items()):
            if number or not self._alone:
                # The same without a process of its own, which takes most of the time.
                given = recover.make_context("recover", shlex.split(command)[1:]).params
                settings = load(None, {}, {"data_dir": str(given["data_dir"])}).settings
                told = accept_loss(settings, given["topic"], given["partition"])
            else:
                told = self._run_command(command)
            if str(place) not in told:
                self._fail(f"{command} says {told}")

    def _run_command(self, command: str) -> str:
        done = subprocess.run(
            [SERVER, *shlex.split(command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_RECOVER_TIMEOUT_S,
        )
        if done.returncode:
            self._fail(f"{command}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _look_again(self) -> None:
        """Everything is served now; readers beyond what is left are told, and can go on."""
        with calling(self.broker) as calls:
            for place in PLACES:
                if place in self.report.gone:
                    continue
                found = calls.read(place)
                values = self._told.values[place]
                self._check_prefix(place, found, values)
                kept = self.report.kept[place] = len(found.records)
                if found.error is not None:
                    self._fail(f"{place} is not back: {found.error}")
                elif kept < self.report.served.get(place, 0):
                    self._fail(f"{place}: {self.report.served[place]} were served, {kept} are left")
                else:
                    self._now.values[place] = values[:kept]
                    self._told_of_the_cut(calls, place, kept)
                    self._write_on(calls, place)
                    self._told_of_the_cut(calls, place, kept)
                    self._look_around(calls, place)
                    self._group_goes_on(calls, place, kept)

    def _told_of_the_cut(self, calls: Calls, place: Place, kept: int) -> None:
        """Whoever had read further is told where the log departs from that."""
        epochs = self._told.epochs[place]
        end = len(epochs)
        beyond = {end, self._dice.randint(kept + 1, end)} if end > kept else set()
        for offset in beyond:
            for call in (calls.fetch, calls.read, calls.subscribe):
                error = call(place, offset, epochs[offset - 1]).error
                if (
                    error is None
                    or error.reason != ERROR_REASON_LOG_TRUNCATED
                    or error.diverging_offset != kept
                ):
                    self._fail(
                        f"{place} was cut at {kept}; {call.__name__} from {offset} gets {error}"
                    )
        if kept:
            found = calls.read(place, kept, epochs[kept - 1])
            if found.error is not None:
                self._fail(f"{place}: nothing is missing below {kept}, but {found.error}")

    def _write_on(self, calls: Calls, place: Place) -> None:
        """Write past the old end, in batches that end elsewhere than the old ones."""
        values = self._now.values[place]
        goal = len(self._told.values[place]) + 5
        while len(values) < goal:
            count = self._dice.randint(1, 9)
            new = [
                b"<again %s %06d>" % (str(place).encode(), len(values) + n) for n in range(count)
            ]
            offset = calls.produce(place, new)
            if offset != len(values):
                self._fail(f"{place} ends at {len(values)}; a batch is answered with {offset}")
                return
            values += new

    def _look_around(self, calls: Calls, place: Place) -> None:
        """Whatever stands at an offset does so from whichever side one comes."""
        values = self._now.values[place]
        self._check_prefix(place, calls.read(place), values)
        for offset in self._dice.sample(range(len(values)), min(_SAMPLES, len(values))):
            self._check_prefix(place, calls.fetch(place, offset), values, offset)

    def _group_goes_on(self, calls: Calls, place: Place, kept: int) -> None:
        """A group in what was lost is told; once it is moved it goes on."""
        committed = calls.committed(place)
        if isinstance(committed, Error):
            self._fail(f"the commits of {place} are not back: {committed}")
            return
        if committed is None or committed not in self._told.commits[place]:
            if committed is not None or not self.report.offline.get(_OFFSETS):
                self._fail(f"the group never committed {committed} in {place}")
            return
        found = calls.read_committed(place)
        if committed > kept:
            if found.error is None or found.error.reason != ERROR_REASON_LOG_TRUNCATED:
                self._fail(
                    f"{place} was cut at {kept}; the group at {committed} gets {found}"[:400]
                )
                return
            epoch = self._told.epochs[place][kept - 1] if kept else 0
            calls.commit({place: (found.error.diverging_offset, epoch)})
            committed, found = kept, calls.read_committed(place)
        self._check_prefix(place, found, self._now.values[place], committed)
        if found.error or committed + len(found.records) != len(self._now.values[place]):
            self._fail(
                f"{place}: the group goes on from {committed} to {found.error or 'too little'}"
            )

    # And once more.

    def _look_after_a_kill(self) -> None:
        with calling(self.broker) as calls:
            for place in (*FSYNC, *ACCEPTING):
                if place not in self.report.gone:
                    found = calls.read(place)
                    self._check_prefix(place, found, self._now.values[place])
                    if found.error or len(found.records) != len(self._now.values[place]):
                        self._fail(f"{place}: {len(found.records)} after a kill: {found.error}")
