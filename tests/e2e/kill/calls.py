"""Unary calls through crashes: which to make again, and what stands in a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc.aio

from riverrun._net.failures import error_detail
from riverrun.v1.errors_pb2 import OUTCOME_NOTHING_HAPPENED, Error

T = TypeVar("T")

AGAIN_S = 0.05


def final(error: Error) -> bool:
    """Whether the same request will never do any good."""
    return error.outcome == OUTCOME_NOTHING_HAPPENED and not error.retry_safe


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call again and again until it is answered; it must be one that may be made again.

    Raises:
        grpc.aio.AioRpcError: the broker refuses it for good.
    """
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as failure:
            error = error_detail(failure)
            if error is not None and final(error):
                raise
        await asyncio.sleep(AGAIN_S)
