"""The metadata store: a small linearizable map with revisions, transactions, leases and watches.

What etcd gives, and no more than an embedded store can give too. Every change takes the next
revision of the one counter that the whole store has. Reads, transactions and watches only ever show
what is durable. A lease gives liveness and nothing else: it may end early or late, so whatever acts
on the strength of a key is fenced by that key's revision where it acts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol, TypeVar

from riverrun_server.core.cluster.values import Value

# etcd refuses more than 128 by default; below that in each of compares and operations.
MAX_OPERATIONS: Final = 100
# etcd refuses requests above 1.5 MiB by default.
MAX_TRANSACTION_BYTES: Final = 1 << 20


class MetadataError(Exception):
    """The metadata store did not do what it was asked.

    Attributes:
        definite: nothing happened, and nothing will because of this call.
    """

    definite: ClassVar[bool] = True


class MetadataUnavailable(MetadataError):
    """The store took nothing; the same call may succeed later."""


class AccessDenied(MetadataUnavailable):
    """The store knows who asks, or does not, and refuses; an operator has to change that."""


class StoreEnded(MetadataUnavailable):
    """The store answers nothing any more in this process: closed, failed, or no longer the same."""


class UnknownOutcome(MetadataError):
    """Nobody knows whether the transaction was applied, or whether it still will be."""

    definite = False


class WatchInterrupted(MetadataError):
    """The watch cannot show that it misses nothing; list again and go on from there."""


class Compacted(MetadataError):
    """The revision asked for is no longer kept; list again and go on from there.

    Args:
        compacted_revision: events up to this one are gone.
    """

    def __init__(self, revision: int, compacted_revision: int) -> None:
        super().__init__(
            f"revision {revision} is compacted, events up to {compacted_revision} are gone; list "
            "again and watch from behind the listing's revision"
        )
        self.compacted_revision = compacted_revision


class FutureRevision(MetadataError):
    """The revision asked for has not been reached: this is another store, or an older copy."""


class LeaseNotFound(MetadataError):
    """The lease has expired, was revoked, or never was."""


class InvalidTransaction(MetadataError):
    """The transaction breaks a bound or names a key twice; nothing happened."""


class InvalidDocument(MetadataError):
    """A stored value is not what its key promises."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands.

    Attributes:
        key: its name.
        value: what was put.
        create_revision: when it was made, the last time that it was not there before.
        mod_revision: when it was put last.
        version: how often it was put since it was made.
        lease: the lease that it goes with, or 0.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(enum.Enum):
    """What of a key is compared. For a key that is not there all numbers are 0."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VERSION = "version"
    VALUE = "value"


class Relation(enum.Enum):
    """How it is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction, read as `target relation operand`.

    A value is never anything of a key that is not there: such a comparison fails, whatever it asks.
    """

    key: str
    target: Target
    relation: Relation
    operand: int | bytes

    @classmethod
    def absent(cls, key: str) -> Compare:
        """The key is not there."""
        return cls(key, Target.CREATE_REVISION, Relation.EQUAL, 0)

    @classmethod
    def exists(cls, key: str) -> Compare:
        """The key is there."""
        return cls(key, Target.CREATE_REVISION, Relation.GREATER, 0)

    @classmethod
    def unchanged(cls, key: str, mod_revision: int) -> Compare:
        """The key stands as it was put at a revision; at 0 it is not there."""
        return cls(key, Target.MOD_REVISION, Relation.EQUAL, mod_revision)

    @classmethod
    def same_life(cls, key: str, create_revision: int) -> Compare:
        """The key was not deleted since it was made at a revision."""
        return cls(key, Target.CREATE_REVISION, Relation.EQUAL, create_revision)


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; with a lease it goes when the lease does."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, where it is there."""

    key: str


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Transaction:
    """Operations that happen together, if every condition holds. No key is changed twice."""

    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]

    def check(self) -> None:
        """Hold it against the bounds.

        Raises:
            InvalidTransaction: too many compares or operations, too many bytes, or a key twice.
        """
        count = max(len(self.compares), len(self.operations))
        if count > MAX_OPERATIONS:
            raise InvalidTransaction(f"{count} operations in a transaction, max {MAX_OPERATIONS}")
        if len({each.key for each in self.operations}) < len(self.operations):
            raise InvalidTransaction("a transaction changes the same key twice")
        size = sum(len(each.key) for each in self.compares)
        for each in self.operations:
            size += len(each.key) + (len(each.value) if isinstance(each, Put) else 0)
        if size > MAX_TRANSACTION_BYTES:
            raise InvalidTransaction(f"a transaction of {size} B, max {MAX_TRANSACTION_BYTES} B")


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """How a transaction ended.

    Attributes:
        succeeded: every condition held and every operation was applied.
        revision: of the store; where the transaction changed something, that of the change.
        entries: where it failed, the keys that were compared, as they stand at `revision`.
    """

    succeeded: bool
    revision: int
    entries: dict[str, Entry | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys under a prefix, in order, as they stood at one revision."""

    revision: int
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Event:
    """A key was put (`entry`) or deleted (None) at a revision."""

    key: str
    entry: Entry | None
    mod_revision: int


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Everything that one revision changed under the watched prefix, never part of it."""

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A time to live that its holder prolongs.

    Whoever relies on it counts `ttl_s` from *before* the last answered request was sent.
    """

    lease_id: int
    ttl_s: float


class Watch(Protocol):
    """A place in the order of events. It holds no events of its own, so it may be slow."""

    async def next(self) -> WatchBatch:
        """Wait for the next change under the prefix.

        Revisions only grow from one batch to the next. Cancelling a call loses nothing.

        Raises:
            Compacted: the watch fell behind what is kept, or began there; list again.
            WatchInterrupted: it lost its connection, or an event; list again.
            MetadataUnavailable: the watch was closed; StoreEnded where the store has ended.
        """
        ...

    async def close(self) -> None:
        """Let go; a waiting `next` ends with MetadataUnavailable."""
        ...


class MetadataStore(Protocol):
    """The store. All methods are linearizable."""

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        """Return a key as it stands, or stood at a revision.

        Raises:
            Compacted, FutureRevision, MetadataUnavailable
        """
        ...

    async def scan(self, prefix: str, *, revision: int | None = None) -> Listing:
        """Return all keys that begin with `prefix`, as they stand, or stood at a revision.

        Raises:
            Compacted, FutureRevision, MetadataUnavailable
        """
        ...

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Apply a transaction or say why not. It is sent once and never by itself again.

        Raises:
            UnknownOutcome: it may have been applied, or may still be.
            MetadataUnavailable, InvalidTransaction, LeaseNotFound: nothing happened.
        """
        ...

    def watch(self, prefix: str, start_revision: int) -> Watch:
        """Return a watch of every change under `prefix` from a revision on, that one included."""
        ...

    async def grant(self, ttl_s: float) -> Lease:
        """Make a lease; keys put with it are deleted together when it ends.

        Raises:
            UnknownOutcome: there may be a lease that nobody knows of; it ends by itself.
            MetadataUnavailable: nothing happened.
        """
        ...

    async def keep_alive(self, lease_id: int) -> Lease:
        """Let a lease begin anew with its full time.

        Raises:
            LeaseNotFound: it has ended; its keys are gone, or going.
            MetadataUnavailable: it goes on as it did.
        """
        ...

    async def revoke(self, lease_id: int) -> None:
        """End a lease now, and its keys with it.

        Raises:
            LeaseNotFound: it has ended.
            UnknownOutcome: it may have ended.
            MetadataUnavailable: it goes on as it did.
        """
        ...


V = TypeVar("V", bound=Value)


class Documents(Protocol):
    """Makes stored bytes of values and values of stored bytes."""

    def encode(self, value: Value, nonce: bytes) -> bytes:
        """Return a document that no other call with another nonce gives."""
        ...

    def decode(self, kind: type[V], entry: Entry) -> V:
        """Return the value that a document holds; fields of a newer version are kept.

        Raises:
            InvalidDocument: it holds something else; the text names key and field.
        """
        ...
