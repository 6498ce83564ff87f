"""Closing many things at once, and once, whoever asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

_log = logging.getLogger("riverrun")


class Closing:
    """Who asks first closes; who asks later waits for that."""

    def __init__(self) -> None:
        self._begun = False
        self._over = asyncio.Event()

    async def once(self, close: Callable[[], Awaitable[None]], timeout_s: float | None) -> None:
        """Close, or wait so long until it is closed."""
        if self._begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._over.wait()
            return
        self._begun = True
        try:
            await close()
        finally:
            self._over.set()


async def all_closed(closings: Iterable[Awaitable[None]], *, quiet: bool) -> None:
    """Close things, one beside the other; raise the first error, unless `quiet`, and log the others."""
    outcomes = await asyncio.gather(*closings, return_exceptions=True)
    errors = [error for error in outcomes if error is not None]
    for error in errors if quiet else errors[1:]:
        _log.warning("while closing: %s", error)
    if errors and not quiet:
        raise errors[0]
