"""Sending one message of a stream to a client that may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc.aio

T = TypeVar("T")


async def send(write: Callable[[T], Awaitable[None]], message: T) -> None:
    """Send a message; where the client is gone, the call ends as it does when gRPC notices first.

    Which of the two comes first is chance, and a client that was killed is no bug to be logged.
    """
    try:
        await write(message)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error
