"""Where each value stands in the metadata store, readable in `etcdctl get --prefix`."""

from __future__ import annotations

from typing import Final, NamedTuple

from riverrun_server.core.cluster.values import Id

CLUSTER: Final = "cluster"
CONTROLLER: Final = "controller"
PRODUCER_IDS: Final = "producer_ids"

_BROKERS: Final = "brokers/"
_LIVE: Final = "live/"
TOPICS: Final = "topics/"
_PARTITIONS: Final = "partitions/"
_TOMBSTONES: Final = "tombstones/"


class ClusterKey(NamedTuple):
    """The cluster's own value."""


class BrokerKey(NamedTuple):
    """A broker's registration."""

    broker_id: int


class LiveKey(NamedTuple):
    """A broker's process that is alive."""

    broker_id: int


class ControllerKey(NamedTuple):
    """The controller's key."""


class TopicKey(NamedTuple):
    """A topic's definition."""

    topic: str


class PartitionKey(NamedTuple):
    """A partition's state."""

    topic_id: Id
    partition: int


class TombstoneKey(NamedTuple):
    """A topic id on its way in or out."""

    topic_id: Id


Key = ClusterKey | BrokerKey | LiveKey | ControllerKey | TopicKey | PartitionKey | TombstoneKey


def broker(broker_id: int) -> str:
    """Return the key of a broker's registration."""
    return f"{_BROKERS}{broker_id}"


def live(broker_id: int) -> str:
    """Return the key that is there while a broker's process holds its lease."""
    return f"{_LIVE}{broker_id}"


def topic(name: str) -> str:
    """Return the key of a topic's definition."""
    return f"{TOPICS}{name}"


def partition(topic_id: Id, number: int) -> str:
    """Return the key of a partition's state; in order of the number (ten digits hold any int32)."""
    return f"{_PARTITIONS}{topic_id}/{number:010d}"


def tombstone(topic_id: Id) -> str:
    """Return the key of a tombstone."""
    return f"{_TOMBSTONES}{topic_id}"


def parse(key: str) -> Key | None:
    """Return what a key stands for; None for keys of other owners or of a newer version."""
    kind, slash, rest = key.partition("/")
    try:
        return _parse(kind + slash, rest)
    except ValueError:
        return None


def _parse(kind: str, rest: str) -> Key | None:
    found: Key | None = None
    if kind == _PARTITIONS:
        topic_id, _, number = rest.partition("/")
        found = PartitionKey(Id.parse(topic_id), int(number))
    elif kind == TOPICS:
        found = TopicKey(rest)
    elif kind == _BROKERS:
        found = BrokerKey(int(rest))
    elif kind == _LIVE:
        found = LiveKey(int(rest))
    elif kind == _TOMBSTONES:
        found = TombstoneKey(Id.parse(rest))
    elif kind == CONTROLLER:
        found = ControllerKey()
    elif kind == CLUSTER:
        found = ClusterKey()
    return found
