"""What callbacks are told of records: in the order of the answers, each apart from all others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from riverrun._core.records import RecordMetadata
from riverrun.errors import RiverrunError

_log = logging.getLogger("riverrun")

OnDelivery: TypeAlias = Callable[[RiverrunError | None, RecordMetadata | None], None]
"""Told once of a record: (None, where it stands), or (why it does not, None)."""

Report: TypeAlias = tuple[OnDelivery, RiverrunError | None, RecordMetadata | None]


def report_soon(reports: list[Report]) -> None:
    """Call all back from the event loop, and not from within what resolves their records.

    A callback may send, and so must not be called while other answers are still being told.
    """
    asyncio.get_running_loop().call_soon(report, reports)


def report(reports: list[Report]) -> None:
    """Call all back now; what they raise is logged."""
    for on_delivery, error, metadata in reports:
        try:
            returned: object = on_delivery(error, metadata)
            if asyncio.iscoroutine(returned):
                returned.close()
                raise TypeError("it is a coroutine function, which nobody awaits; use a plain one")  # noqa: TRY301
        except Exception:  # noqa: BLE001
            outcome = "acknowledged" if error is None else f"told of {error.reason}"
            _log.exception("on_delivery raised for a record that is %s", outcome)
