"""One run of a command against a cluster: a client, an event loop, and errors told by exit codes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from riverrun.cli.exits import Complaint, Exit, exit_for
from riverrun.cli.memory import keep_memory
from riverrun.cli.notices import warnings_shown
from riverrun.cli.settings import Settings, settings
from riverrun.client import Client
from riverrun.errors import RetriableError, RiverrunError, UsageError

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0
Result = TypeVar("Result")


def run_session(
    ctx: click.Context,
    work: Callable[[Client], Awaitable[Result]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Result:
    """Run `work` with a client of the cluster that the global options name.

    Args:
        ctx: of the command.
        work: what to do.
        loop_factory: makes the event loop; asyncio's own by default.

    Raises:
        Complaint: the library failed, with its reason, text and exit code.
    """
    chosen = settings(ctx)
    keep_memory()

    async def session() -> Result:
        async with new_client(chosen) as client:
            return await work(client)

    try:
        # Programs that read one JSON object of an error are not told of the wait before it.
        told = warnings_shown(waiting_too=not chosen.as_json or sys.stderr.isatty())
        with told, asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(session())
    except RiverrunError as error:
        raise complaint_of(error) from error


def new_client(chosen: Settings) -> Client:
    """Make a client from the global options.

    Raises:
        Complaint: they are wrong.
    """
    try:
        return Client(
            chosen.bootstrap,
            connect_timeout_s=min(chosen.timeout_s or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S),
            request_timeout_s=chosen.timeout_s or REQUEST_TIMEOUT_S,
            client_id="riverrun-cli",
        )
    except UsageError as error:
        raise Complaint(f"--bootstrap: {error.message}", Exit.USAGE, "USAGE") from error


def complaint_of(error: RiverrunError) -> Complaint:
    """Turn an error of the library into what a person is told."""
    code = exit_for(
        str(error.reason),
        outcome_known=error.outcome_known,
        retriable=isinstance(error, RetriableError),
    )
    text = error.message
    if not error.outcome_known:
        text += " (nobody knows whether it took effect)"
    complaint = Complaint(text, code, str(error.reason))
    if error.acknowledged_records:
        complaint.more["acknowledged_records"] = error.acknowledged_records
        complaint.partly()
    return complaint
