"""Who makes the call that is being handled, known everywhere below its handler."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, NamedTuple

from riverrun_server.ports.gateways import Origin

# Until there is authentication everybody is this principal.
ANONYMOUS: Final = "anonymous"


class Caller(NamedTuple):
    """Where a call comes from.

    Attributes:
        principal: who, as far as the listener's protocol can tell.
        listener: the name of the listener that the call came in on; addresses that the caller is
            told are those of this listener.
        peer: the connection, as gRPC names it; streams of one connection share it.
    """

    principal: str
    listener: str
    peer: str


CALLER: Final[ContextVar[Caller]] = ContextVar("riverrun_caller")


def origin() -> Origin:
    """Return for whom another broker is asked; outside of calls that is this broker itself."""
    caller = CALLER.get(None)
    return Origin() if caller is None else Origin(caller.principal, caller.listener)
