"""Exit codes, and how an error is told: one line for people, one JSON object for programs."""

from __future__ import annotations

import enum
import json
import sys

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
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    Exit.OK: "Done. Also where the reader of a pipe went away, and where a `consume` without an "
    "end of its own was stopped by SIGINT or SIGTERM.",
    Exit.FAILED: "It failed, and definitely did not happen; the message says why. `doctor`: "
    "something is wrong.",
    Exit.USAGE: "The command line or a line of input is wrong; the message says what is right.",
    Exit.NOT_FOUND: "There is no such topic, partition or offset.",
    Exit.CONFLICT: "There is such a topic already, or somebody else's change came in between.",
    Exit.UNAVAILABLE: "No broker answers, or it cannot do it just now. Nothing happened; the same "
    "command may succeed a little later.",
    Exit.UNKNOWN_OUTCOME: "It failed, and nobody knows whether it happened: look before you repeat "
    "it.",
    Exit.INTERRUPTED: "Stopped by SIGINT before it was done; what was taken was finished first.",
    Exit.TERMINATED: "Stopped by SIGTERM before it was done; what was taken was finished first.",
}

_BY_REASON = {
    "TOPIC_NOT_FOUND": Exit.NOT_FOUND,
    "PARTITION_NOT_FOUND": Exit.NOT_FOUND,
    "OFFSET_OUT_OF_RANGE": Exit.NOT_FOUND,
    "LOG_TRUNCATED": Exit.NOT_FOUND,
    "TOPIC_EXISTS": Exit.CONFLICT,
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
        acknowledged: how many records were written all the same; None where none were sent.
    """

    def __init__(
        self,
        message: str,
        code: Exit = Exit.FAILED,
        reason: str = "FAILED",
        acknowledged: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.acknowledged = acknowledged


def tell(complaint: Complaint, *, as_json: bool) -> None:
    """Write a complaint to standard error."""
    if as_json:
        error: dict[str, object] = {
            "reason": complaint.reason,
            "message": complaint.message,
            "outcome": "unknown" if complaint.code is Exit.UNKNOWN_OUTCOME else "nothing happened",
            "exit_code": int(complaint.code),
        }
        if complaint.acknowledged is not None:
            error["acknowledged_records"] = complaint.acknowledged
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
