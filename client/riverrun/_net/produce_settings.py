"""A producer's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun._core.argument_checks import check_seconds, out_of_range, whole_number
from riverrun._core.codecs import codec_for
from riverrun._core.partitioner import Partitioner, PartitionerName, RouteMaker, route_maker
from riverrun._core.row_checks import BATCH_BYTES_MAX


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """A producer's settings, checked; `Client.producer` explains them."""

    acks: str
    idempotent: bool
    codec: int
    linger_s: float
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout_s: float
    new_route: RouteMaker


def checked_config(
    *,
    acks: str,
    idempotent: bool,
    compression: str,
    linger_s: float,
    batch_bytes: int,
    buffer_bytes: int,
    delivery_timeout_s: float,
    partitioner: PartitionerName | Partitioner,
) -> ProducerConfig:
    """Check a producer's settings.

    Raises:
        UsageError: one is out of its range; the text has the range.
    """
    if acks not in ("all", "leader", "none"):
        raise out_of_range("acks", acks, 'one of "all", "leader", "none"')
    check_seconds("linger_s", linger_s, 0, 60)
    batch_bytes = whole_number("batch_bytes", batch_bytes, 1, BATCH_BYTES_MAX)
    buffer_bytes = whole_number(
        "buffer_bytes", buffer_bytes, batch_bytes, expected=f"at least batch_bytes ({batch_bytes})"
    )
    check_seconds("delivery_timeout_s", delivery_timeout_s, above=True)
    return ProducerConfig(
        acks=acks,
        idempotent=idempotent,
        codec=codec_for(compression),
        linger_s=linger_s,
        batch_bytes=batch_bytes,
        buffer_bytes=buffer_bytes,
        delivery_timeout_s=delivery_timeout_s,
        new_route=route_maker(partitioner),
    )
