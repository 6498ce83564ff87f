"""Members of a group as processes, each of which may be killed, paused, told to leave, and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.group_chaos.diary import Diary, now_s, read
from tests.cluster.group_chaos.member_options import Options
from tests.e2e.broker_process import _LAUNCHER, _SPAWNER

STUB = "tests.cluster.group_chaos.stub_member"
CLIENT = "tests.cluster.group_chaos.client_member"
_LEAVE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Terms:
    """What the members of one group have in common.

    Attributes:
        bootstrap: where the brokers are.
        group, topic: what they read, and as whose members.
        session_ms: for how long each may be silent.
        folder: for their diaries.
        is_numbered: whether records hold numbers.
    """

    bootstrap: str
    group: str
    topic: str
    session_ms: int
    folder: Path
    is_numbered: bool = True


@dataclass
class _Life:
    """One process of a member, from its start to its end."""

    diary: Path
    died_s: float | None = None


class MemberProcess:
    """One member: `start` brings it up, each time as another process with a diary of its own.

    Transitions: down -> running (`start`) -> down (`kill9`, `leave`); running <-> paused (`pause`, `resume`);
    paused -> down (`kill9`).

    Args:
        terms: of its group.
        name: of the member.
        first: number of the broker where it begins.
        instance: its place in the group; empty is none.
        program: which kind of member it is.

    Attributes:
        terms, name: as given.
        is_paused: whether it stands still.
        exit_code: of its last process, None while that runs; negative is a signal.
    """

    def __init__(
        self, terms: Terms, name: str, first: int, instance: str = "", program: str = STUB
    ) -> None:
        self.terms = terms
        self.name = name
        self.is_paused = False
        self.exit_code: int | None = None
        self._first = first
        self._instance = instance
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._lives: list[_Life] = []

    @property
    def is_running(self) -> bool:
        """Whether it has a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it; it joins by itself."""
        assert self._process is None, f"{self.name} runs already"
        self.exit_code = None
        path = self.terms.folder / f"{self.name}-{len(self._lives)}.diary"
        path.touch()
        self._lives.append(_Life(path))
        self._process = _SPAWNER.submit(self._spawn, path).result()

    def kill9(self) -> None:
        """Kill it as a crash would."""
        assert self._process is not None, f"{self.name} does not run"
        self._process.kill()
        self._ended()
        self._lives[-1].died_s = now_s()

    def pause(self) -> None:
        """Have it stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
        self.is_paused = False

    def leave(self) -> None:
        """Have it commit, leave and end.

        Raises:
            AssertionError: it did not end in time, and was killed; or it failed.
        """
        assert self._process is not None, f"{self.name} does not run"
        self._process.terminate()
        try:
            self._process.wait(_LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(
                f"{self.name} did not end within {_LEAVE_TIMEOUT_S} s of SIGTERM"
            ) from None
        code = self._ended()
        if code == -signal.SIGTERM:
            # It was told before it could hear, and had not joined yet.
            self._lives[-1].died_s = now_s()
        else:
            assert not code, f"{self.name} ended with {code}"

    def stop(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None:
            self.kill9()

    def diaries(self) -> Iterator[Diary]:
        """Yield what each of its processes has written so far."""
        for life in self._lives:
            is_open = self._program == STUB
            yield Diary(self.name, list(read(life.diary)), life.died_s, is_open=is_open)

    def _ended(self) -> int:
        assert self._process is not None
        self.exit_code = self._process.wait()
        self._process = None
        self.is_paused = False
        return self.exit_code

    def _spawn(self, diary: Path) -> subprocess.Popen[bytes]:
        terms = self.terms
        options = Options(
            terms.bootstrap,
            self._first,
            terms.group,
            terms.topic,
            self._instance,
            terms.session_ms,
            terms.is_numbered,
            diary,
        )
        command = [
            *([sys.executable, "-c", _LAUNCHER] if sys.platform == "linux" else []),
            *(sys.executable, "-m", self._program, *options.arguments()),
        ]
        with (diary.with_suffix(".log")).open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@contextlib.contextmanager
def running(
    begin: Sequence[MemberProcess], everybody: Sequence[MemberProcess] | None = None
) -> Iterator[None]:
    """Start some members, and leave none of everybody behind."""
    try:
        for member in begin:
            member.start()
        yield
    finally:
        for member in everybody or begin:
            member.stop()
