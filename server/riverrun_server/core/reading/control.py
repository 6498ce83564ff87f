"""What a reader says on its stream after the start, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.reading.places import Place


class PartitionName(NamedTuple):
    """A partition as a client names it; `topic` or `topic_id` may be empty."""

    topic: str
    topic_id: bytes
    partition: int


@dataclass(frozen=True, slots=True)
class Grant:
    """More credit; None leaves a kind as it is."""

    records: int | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Seek:
    """Go elsewhere in one partition; a refusal where the place makes no sense."""

    seek_id: int
    name: PartitionName
    place: Place | Refusal


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop delivering partitions; none is all."""

    names: Sequence[PartitionName]


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with paused partitions; none is all."""

    names: Sequence[PartitionName]


@dataclass(frozen=True, slots=True)
class Commit:
    """Store offsets of the stream's group.

    Attributes:
        commit_id: the reader's own number.
        offsets: what to store.
        epoch: the newest that a member had been told when it read that; None is the newest of now.
    """

    commit_id: int
    offsets: Sequence[OffsetCommit]
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """No more control will come."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The reader broke the rules of the stream, which ends with this refusal."""

    refusal: Refusal


Control = Grant | Seek | Pause | Resume | Commit | HalfClosed | Broken
