"""Notices gRPC in a process that was forked while gRPC ran: it would wait for threads that are not there."""

from __future__ import annotations

import os

from riverrun.errors import FatalError, Reason


class _FirstUse:
    """Where gRPC was first used; None before."""

    pid: int | None = None


def check_process() -> None:
    """Note that gRPC is used here.

    Raises:
        FatalError: it was in use already when this process was forked.
    """
    if _FirstUse.pid is None:
        _FirstUse.pid = os.getpid()
    elif _FirstUse.pid != os.getpid():
        raise forked(f"process {os.getpid()} was forked from one that had used a client already")


def forked(what: str) -> FatalError:
    """Make the error that says what to do instead."""
    return FatalError(
        f"{what}, and gRPC does not survive fork(); nothing was sent. Make the client after forking, "
        "in a process whose parent has not called one before, or start the process with "
        'multiprocessing.get_context("spawn"). The parent goes on as before',
        reason=Reason.FORKED,
    )
