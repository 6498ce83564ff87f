"""One run of a command against a cluster: a client, an event loop, and errors told by exit codes."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import click

from riverrun.cli.exits import Complaint, exit_for
from riverrun.cli.settings import Settings, settings
from riverrun.client import Client
from riverrun.errors import Reason, RetriableError, RiverrunError

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0
SUGGESTION_TIMEOUT_S = 2.0
Result = TypeVar("Result")


def run_session(
    ctx: click.Context,
    work: Callable[[Client], Awaitable[Result]],
    *,
    topic: str | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Result:
    """Run `work` with a client of the cluster that the global options name.

    Args:
        ctx: of the command.
        work: what to do.
        topic: what the command is about: where it does not exist, the nearest name is suggested.
        loop_factory: makes the event loop; asyncio's own by default.

    Raises:
        Complaint: the library failed, with its reason, text and exit code.
    """
    chosen = settings(ctx)

    async def session() -> Result:
        async with new_client(chosen) as client:
            try:
                return await work(client)
            except RiverrunError as error:
                raise await _complaint(error, client, topic) from error

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(session())
    except RiverrunError as error:
        raise complaint_of(error) from error


def new_client(chosen: Settings) -> Client:
    """Make a client from the global options."""
    return Client(
        chosen.bootstrap,
        connect_timeout_s=min(chosen.timeout_s or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S),
        request_timeout_s=chosen.timeout_s or REQUEST_TIMEOUT_S,
        client_id="riverrun-cli",
    )


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
    return Complaint(
        text, code, str(error.reason), getattr(error, "acknowledged_records", None) or None
    )


async def _complaint(error: RiverrunError, client: Client, topic: str | None) -> Complaint:
    """Add to an unknown topic the name that was probably meant."""
    complaint = complaint_of(error)
    if topic is None or error.reason is not Reason.TOPIC_NOT_FOUND:
        return complaint
    names: list[str] = []
    with suppress(RiverrunError, TimeoutError):
        async with asyncio.timeout(SUGGESTION_TIMEOUT_S):
            names = [found.name async for found in client.admin().list_topics()]
    near = difflib.get_close_matches(topic, names, n=1)
    if near:
        complaint.message = f"{complaint.message.rstrip('. ')}; did you mean {near[0]!r}?"
    return complaint
