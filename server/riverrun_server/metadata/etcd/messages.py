"""Between the port's values and etcd's messages: pure, and the only place that knows the prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.ports.metadata import (
    Compare,
    Delete,
    Entry,
    Event,
    InvalidTransaction,
    Operation,
    Put,
    Relation,
    Target,
    Transaction,
    TransactionResult,
)

# What an untuned etcd takes (--max-request-bytes, --max-txn-ops); the second counts each list alone.
MAX_REQUEST_BYTES: Final = 1_572_864
MAX_TXN_OPERATIONS: Final = 128
# etcd wraps a request into a proposal of its own, whose size is what it compares.
_WRAPPING_BYTES: Final = 1024

_RESULTS: Final = {
    Relation.EQUAL: pb.Compare.EQUAL,
    Relation.NOT_EQUAL: pb.Compare.NOT_EQUAL,
    Relation.LESS: pb.Compare.LESS,
    Relation.GREATER: pb.Compare.GREATER,
}


class Messages:
    """Builds requests and reads replies for the keys under one prefix.

    >>> messages = Messages("/riverrun/orders/")
    >>> messages.under("topics/").range_end
    b'/riverrun/orders/topics0'
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()

    # --- requests --------------------------------------------------------------------------------

    def one(self, key: str, revision: int = 0) -> pb.RangeRequest:
        """Ask for one key; revision 0 is the newest."""
        return pb.RangeRequest(key=self._key(key), revision=revision)

    def under(
        self, prefix: str, *, after: str | None = None, revision: int = 0, limit: int = 0
    ) -> pb.RangeRequest:
        """Ask for the keys under a prefix, in order, those up to `after` left out."""
        start = self._key(prefix) if after is None else self._key(after) + b"\0"
        return pb.RangeRequest(
            key=start, range_end=end_of(self._key(prefix)), revision=revision, limit=limit
        )

    def txn(self, transaction: Transaction) -> pb.TxnRequest:
        """Write a transaction; where it fails, it reads the keys that were compared.

        Raises:
            InvalidTransaction: it is beyond what etcd takes; nothing was sent.
        """
        transaction.check()
        compared = dict.fromkeys(each.key for each in transaction.compares)
        request = pb.TxnRequest(
            compare=[self._compare(each) for each in transaction.compares],
            success=[self._operation(each) for each in transaction.operations],
            failure=[pb.RequestOp(request_range=self.one(key)) for key in compared],
        )
        if not request.compare and not request.success:
            # etcd answers a transaction that asks nothing from what this one member knows; one that
            # reads is linearizable.
            look = pb.RangeRequest(key=self._prefix, keys_only=True, limit=1)
            request.success.append(pb.RequestOp(request_range=look))
        longest = max(len(request.compare), len(request.success), len(request.failure))
        assert longest <= MAX_TXN_OPERATIONS, longest  # check() allows fewer
        size = request.ByteSize() + _WRAPPING_BYTES
        if size > MAX_REQUEST_BYTES:
            raise InvalidTransaction(
                f"a transaction of {size} B as etcd's message, max {MAX_REQUEST_BYTES} B; "
                "its keys are too long, or too many"
            )
        return request

    def watch(self, prefix: str, start_revision: int) -> pb.WatchRequest:
        """Ask for everything under a prefix from a revision on."""
        start = self._key(prefix)
        return pb.WatchRequest(
            create_request=pb.WatchCreateRequest(
                key=start, range_end=end_of(start), start_revision=start_revision, fragment=True
            )
        )

    # --- replies ---------------------------------------------------------------------------------

    def entries(self, found: Sequence[pb.KeyValue]) -> list[Entry]:
        """Read keys as they stand."""
        return [self._entry(each) for each in found]

    def result(self, transaction: Transaction, reply: pb.TxnResponse) -> TransactionResult:
        """Read how a transaction ended."""
        entries: dict[str, Entry | None] = {}
        if not reply.succeeded:
            compared = dict.fromkeys(each.key for each in transaction.compares)
            for key, response in zip(compared, reply.responses, strict=True):
                found = self.entries(response.response_range.kvs)
                entries[key] = found[0] if found else None
        return TransactionResult(reply.succeeded, reply.header.revision, entries)

    def event(self, event: pb.Event) -> Event:
        """Read one change."""
        if event.type == pb.Event.DELETE:
            return Event(self._name(event.kv.key), None, event.kv.mod_revision)
        entry = self._entry(event.kv)
        return Event(entry.key, entry, entry.mod_revision)

    # --- parts -----------------------------------------------------------------------------------

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode(errors="surrogateescape")

    def _name(self, key: bytes) -> str:
        assert key.startswith(self._prefix), (key, self._prefix)
        return key[len(self._prefix) :].decode(errors="surrogateescape")

    def _entry(self, kv: pb.KeyValue) -> Entry:
        return Entry(
            self._name(kv.key), kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
        )

    def _compare(self, compare: Compare) -> pb.Compare:
        message = pb.Compare(result=_RESULTS[compare.relation], key=self._key(compare.key))
        # A number that is 0 has to be set too: what is unset compares with nothing.
        match compare.target, compare.operand:
            case Target.VALUE, bytes(value):
                message.target, message.value = pb.Compare.VALUE, value
            case Target.VERSION, int(number):
                message.target, message.version = pb.Compare.VERSION, number
            case Target.CREATE_REVISION, int(number):
                message.target, message.create_revision = pb.Compare.CREATE, number
            case Target.MOD_REVISION, int(number):
                message.target, message.mod_revision = pb.Compare.MOD, number
            case _:
                raise AssertionError(f"{compare} compares a number with bytes")
        return message

    def _operation(self, operation: Operation) -> pb.RequestOp:
        match operation:
            case Put(key, value, lease):
                put = pb.PutRequest(key=self._key(key), value=value, lease=lease)
                return pb.RequestOp(request_put=put)
            case Delete(key):
                deletion = pb.DeleteRangeRequest(key=self._key(key))
                return pb.RequestOp(request_delete_range=deletion)


def end_of(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with a prefix."""
    kept = prefix.rstrip(b"\xff")
    assert kept, "every key begins with nothing"
    return kept[:-1] + bytes([kept[-1] + 1])
