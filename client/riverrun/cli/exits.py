"""Exit codes, and how an error is told: one line for people, one JSON object for programs."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping

from riverrun.cli import status
from riverrun.cli.colours import coloured


class Exit(enum.IntEnum):
    """What the exit code of every command means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    UNKNOWN_OUTCOME = 6
    PARTLY = 7
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    Exit.OK: "Done. Also where the reader of a pipe went away, and where a `consume` without an "
    "end of its own, once it had begun, was stopped by SIGINT or SIGTERM.",
    Exit.FAILED: "It failed, and definitely nothing of it happened; the message says why. `doctor`: "
    "something is wrong.",
    Exit.USAGE: "The command line, or the first line of input, is wrong; nothing happened, and the "
    "message says what is right.",
    Exit.NOT_FOUND: "There is no such topic, partition, offset, broker, group or member.",
    Exit.CONFLICT: "There is such a topic already, somebody else's change came in between, or a group has "
    "members.",
    Exit.UNAVAILABLE: "No broker answers, or it cannot do it just now. Nothing happened; the same "
    "command may succeed a little later.",
    Exit.UNKNOWN_OUTCOME: "It failed, and nobody knows whether it, or a part of it, happened: look "
    "before you repeat it.",
    Exit.PARTLY: "It failed, and a part of it has happened for good, whatever the reason was: records "
    "were acknowledged or printed, partitions trimmed, groups moved, leaders elected, a broker drained in "
    "part. The message says how much. A code of its own, because scripts repeat a command after 1 or 5, "
    "and this one, repeated whole, would do that part twice; the next number, because those from 64 on "
    "are taken by sysexits, and from 126 on by shells.",
    Exit.INTERRUPTED: "Stopped by SIGINT before it was done; what was taken was finished first.",
    Exit.TERMINATED: "Stopped by SIGTERM before it was done; what was taken was finished first.",
}

_BY_REASON = {
    "TOPIC_NOT_FOUND": Exit.NOT_FOUND,
    "PARTITION_NOT_FOUND": Exit.NOT_FOUND,
    "BROKER_NOT_FOUND": Exit.NOT_FOUND,
    "GROUP_NOT_FOUND": Exit.NOT_FOUND,
    "UNKNOWN_MEMBER": Exit.NOT_FOUND,
    "OFFSET_OUT_OF_RANGE": Exit.NOT_FOUND,
    "LOG_TRUNCATED": Exit.NOT_FOUND,
    "TOPIC_EXISTS": Exit.CONFLICT,
    "GROUP_HAS_MEMBERS": Exit.CONFLICT,
    "TOPIC_ID_MISMATCH": Exit.CONFLICT,
    "CONFLICT": Exit.CONFLICT,
    "EXPECTED_OFFSET_MISMATCH": Exit.CONFLICT,
}


def exit_for(reason: str, *, outcome_known: bool, retriable: bool) -> Exit:
    """Choose the exit code for an error of the library by its reason and outcome."""
    if not outcome_known:
        return Exit.UNKNOWN_OUTCOME
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    return Exit.UNAVAILABLE if retriable else Exit.FAILED


class Complaint(Exception):
    """An error of a command, ready to be told.

    Attributes:
        message: what was wrong, the actual and the expected value, and what to do.
        code: the exit code.
        reason: a word to program against.
        more: what programs are told besides, such as how many records were acknowledged.
    """

    def __init__(
        self,
        message: str,
        code: Exit = Exit.FAILED,
        reason: str = "FAILED",
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.more = dict(more or {})

    @property
    def outcome(self) -> str:
        """Whether it happened, in words that `docs/cli.md` promises."""
        match self.code:
            case Exit.UNKNOWN_OUTCOME:
                return "unknown"
            case Exit.PARTLY:
                return "partly happened"
            case _:
                return "nothing happened"

    def partly(self) -> None:
        """Take into account that a part has happened; of what is left nobody may know all the same."""
        if self.code is not Exit.UNKNOWN_OUTCOME:
            self.code = Exit.PARTLY


def tell(complaint: Complaint, *, as_json: bool) -> None:
    """Write a complaint to standard error."""
    if as_json:
        error: dict[str, object] = {
            "reason": complaint.reason,
            "message": complaint.message,
            "outcome": complaint.outcome,
            "exit_code": int(complaint.code),
            **complaint.more,
        }
        text = json.dumps({"error": error}, ensure_ascii=False)
    else:
        text = (
            coloured("error:", "bold red", sys.stderr) + " " + " ".join(complaint.message.split())
        )
    write_note(text)


def write_note(text: str) -> None:
    """Write a line to standard error; one that is closed or gone is no reason to fail."""
    status.wipe()
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
