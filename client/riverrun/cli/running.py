"""The step from reading a command line to running it: only here grpc and the client are imported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    import asyncio

    from riverrun import Client

Result = TypeVar("Result")


def run(
    ctx: click.Context,
    work: Callable[[Client], Awaitable[Result]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Result:
    """Run `work` with a client, as `session.run_session` says."""
    from riverrun.cli.session import run_session  # noqa: PLC0415 - see the module's sentence

    return run_session(ctx, work, loop_factory=loop_factory)
