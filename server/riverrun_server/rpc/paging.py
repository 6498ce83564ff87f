"""Tokens that name where a list goes on (AIP-158): opaque to clients, checked when they come back."""

from __future__ import annotations

import base64
import binascii

from riverrun_server.core.cluster.naming import quoted
from riverrun_server.core.errors import Reason, Refusal


def page_token(text: str) -> str:
    """Return a token that says this."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def read_page_token(token: str) -> str:
    """Return what a token says; nothing where there is none.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise foreign_token(token) from None


def foreign_token(token: str) -> Refusal:
    """Return the refusal of a token that nobody here has given."""
    return Refusal(
        Reason.INVALID_REQUEST,
        f"page_token {quoted(token)} is not one that this service gave; begin without one",
    )
