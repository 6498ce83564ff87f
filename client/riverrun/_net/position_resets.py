"""Tells people, and the application, of positions that were out of range."""

from __future__ import annotations

import logging
from collections.abc import Callable

from riverrun._core.records import PositionReset

_log = logging.getLogger("riverrun")


def tell_reset(on_reset: Callable[[PositionReset], None] | None, reset: PositionReset) -> None:
    """Log where reading goes on, and tell the application; what its callback raises is only logged."""
    _log.warning(
        "%s: position %d is out of range, reading goes on at %d: %s",
        reset.partition, reset.old_offset, reset.new_offset, reset.cause,
    )  # fmt: skip
    if on_reset is not None:
        try:
            on_reset(reset)
        except Exception:  # noqa: BLE001 - an application's own
            _log.exception("on_reset failed")
