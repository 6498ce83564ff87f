"""Batches as a client makes them: values that name themselves, and the real encoding of them."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.wire.ingress import AcceptedBatch, IngressLimits, accept

_LIMITS = IngressLimits(1 << 20, timestamp_ahead_max_ms=1 << 60)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that a client sends together.

    Attributes:
        values: each unique in the whole run.
        producer_id: 0 for a producer that is not idempotent.
        producer_epoch: of the producer.
        base_sequence: of the first record.
    """

    values: tuple[bytes, ...]
    producer_id: int = 0
    producer_epoch: int = 0
    base_sequence: int = 0

    def incoming(self, now_ms: int) -> AcceptedBatch:
        """Return it as it stands before a partition, validated and without a stamp."""
        data = RecordSet(records=[Record(value=value) for value in self.values])
        batch = RecordBatch(records=data.SerializeToString())
        if self.producer_id:
            batch.producer_id = self.producer_id
            batch.producer_epoch = self.producer_epoch
            batch.base_sequence = self.base_sequence
        return accept(batch, _LIMITS, now_ms)
