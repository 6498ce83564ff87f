"""What a failed call to etcd means: whether anything happened, and what there is to do.

etcd has no codes of its own beside gRPC's, which are too coarse; its client library too goes by the
texts. A text that is not known here leaves the outcome open, which is never wrong.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

_ETCD: Final = "etcdserver: "


class Kind(enum.Enum):
    """What became of the request."""

    OPEN = "nobody knows"
    NOTHING = "nothing happened, and another member or a later time may be better"
    COMPACTED = "the revision is compacted"
    FUTURE = "the revision is not reached"
    NO_LEASE = "there is no such lease"
    TOKEN = "the log-in has to be repeated"  # noqa: S105 - no password
    DENIED = "an operator has to allow it"
    TOO_LARGE = "the reply is larger than is received"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: what became of it, and what was said."""

    kind: Kind
    text: str


# The words of etcd's api/v3rpc/rpctypes/error.go. "mvcc: database space exceeded" is missing on purpose:
# the request that reaches the quota is applied and answered with it. So are all that time out.
_KINDS: Final = {
    "mvcc: required revision has been compacted": Kind.COMPACTED,
    "mvcc: required revision is a future revision": Kind.FUTURE,
    "requested lease not found": Kind.NO_LEASE,
    "invalid auth token": Kind.TOKEN,
    "revision of auth store is old": Kind.TOKEN,
    "user name is empty": Kind.TOKEN,
    "permission denied": Kind.DENIED,
    "authentication failed, invalid user ID or password": Kind.DENIED,
    "authentication is not enabled": Kind.DENIED,
    "no leader": Kind.NOTHING,
    "too many requests": Kind.NOTHING,
    "request is too large": Kind.NOTHING,
    "too many operations in txn request": Kind.NOTHING,
    "duplicate key given in txn request": Kind.NOTHING,
    "key is not provided": Kind.NOTHING,
    "too large lease TTL": Kind.NOTHING,
    "not capable": Kind.NOTHING,
    "rpc not supported for learner": Kind.NOTHING,
}


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return what a failed call means."""
    return understood(error.code(), error.details() or "")


def understood(code: grpc.StatusCode, details: str) -> Failure:
    """Return what a status means.

    >>> understood(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader").kind
    <Kind.NOTHING: 'nothing happened, and another member or a later time may be better'>
    >>> understood(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out").kind
    <Kind.OPEN: 'nobody knows'>
    """
    if details.startswith(_ETCD):
        kind = _KINDS.get(details.removeprefix(_ETCD), Kind.OPEN)
        return Failure(kind, details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return Failure(Kind.TOO_LARGE, details)
    return Failure(Kind.OPEN, f"{code.name}: {details}" if details else code.name)


def being_cancelled() -> bool:
    """Return whether somebody cancels this task; gRPC raises the same when a channel is closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
