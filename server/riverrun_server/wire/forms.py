"""The forms in which a stream delivers: batches as stored, records, or strings for a shell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.core.reading.events import Delivery, Event
from riverrun_server.wire import codecs
from riverrun_server.wire.deliveries import (
    BATCHES_TAG,
    RECORDS_TAG,
    ErrorWriter,
    delivery_frame,
    event_frame,
)
from riverrun_server.wire.unpacking import Unpack, codec_of, into_codecs, into_records, into_text

# Below this a plain batch is taken apart on the loop: a thread would take longer than the work.
_ON_LOOP_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class Form:
    """How a stream's deliveries look.

    Attributes:
        tag: of a piece within its delivery.
        unpack: takes batches apart into pieces; None where stored batches are the pieces.
        accepted: the codecs that the reader expands; all others are expanded here.
        bare: a message is one piece and nothing else; then there is no room for anything that is
            not a record, and the failure of a partition ends the stream.
    """

    tag: bytes
    unpack: Unpack | None
    accepted: frozenset[int] = codecs.UNCOMPRESSED
    bare: bool = False

    def unpacks(self, batches: Sequence[StoredBatch]) -> Unpack | None:
        """Return how to take these batches apart, or None where they can go out as they are."""
        if self.tag == BATCHES_TAG and self.unpack is not None:
            accepted = self.accepted
            return None if all(codec_of(each.data) in accepted for each in batches) else self.unpack
        return self.unpack

    def is_cheap(self, batches: Sequence[StoredBatch]) -> bool:
        """Return whether taking these batches apart is over before a thread would have begun."""
        return sum([len(each.data) for each in batches]) <= _ON_LOOP_BYTES and all(
            codec_of(each.data) in codecs.UNCOMPRESSED for each in batches
        )

    def frames(self, delivery: Delivery) -> Sequence[bytes]:
        """Return the messages of a delivery."""
        if self.bare:
            return [piece.data for piece in delivery.pieces]
        return [delivery_frame(delivery, self.tag)]

    def event(self, event: Event, write_error: ErrorWriter) -> bytes | None:
        """Return the message of an event, or None where this form has none."""
        return None if self.bare else event_frame(event, write_error)


RECORDS = Form(RECORDS_TAG, into_records)
TEXT = Form(b"", into_text, bare=True)


def batches(accepted: Iterable[int]) -> Form:
    """Return the form of readers that take batches in these codecs, and in none."""
    known = frozenset(accepted) | codecs.UNCOMPRESSED
    everything = known >= codecs.NAMES.keys()
    return Form(BATCHES_TAG, None if everything else into_codecs(known), known)
