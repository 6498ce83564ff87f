"""Replies are held against what an untuned client accepts, so that it hears why it gets none."""

from __future__ import annotations

from google.protobuf.message import Message

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits


def check_size(reply: Message, limits: Limits, what: str, instead: str) -> None:
    """Refuse to send a reply that its client would not accept.

    Args:
        reply: complete.
        limits: of the broker.
        what: the reply has, for the error's text.
        instead: what to do, for the error's text.

    Raises:
        Refusal: LIMIT_EXCEEDED.
    """
    size = reply.ByteSize()
    if size > limits.max_frame_bytes:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"{what} takes {size} B and a message has at most {limits.max_frame_bytes}; {instead}",
        )
