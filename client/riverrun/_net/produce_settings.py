"""A producer's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun._core.codecs import codec_for
from riverrun._core.partitioner import Partitioner, PartitionerName, RouteMaker, route_maker
from riverrun._core.row_checks import BATCH_BYTES_MAX
from riverrun.errors import Reason, UsageError


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
    if not 0 <= linger_s <= 60:
        raise out_of_range("linger_s", linger_s, "0 to 60")
    if not 1 <= batch_bytes <= BATCH_BYTES_MAX:
        raise out_of_range("batch_bytes", batch_bytes, f"1 to {BATCH_BYTES_MAX}")
    if buffer_bytes < batch_bytes:
        raise out_of_range("buffer_bytes", buffer_bytes, f"at least batch_bytes ({batch_bytes})")
    if not delivery_timeout_s > 0:
        raise out_of_range("delivery_timeout_s", delivery_timeout_s, "above 0")
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


def out_of_range(name: str, value: object, expected: str) -> UsageError:
    """Say that a setting or an argument is not what it may be."""
    return UsageError(f"{name} is {value!r}; it must be {expected}", reason=Reason.INVALID_REQUEST)
