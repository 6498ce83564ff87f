"""Reading from a simulated leader as the read path does: positions, truncations, what is committed."""

from __future__ import annotations

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.log import CorruptData
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.wire.stored import scan_batch
from tests.sim.cluster.raw_log import records_of
from tests.sim.cluster.requests import Fetched

_BYTES = 400


def fetch(replica: Replica, position: int, last_epoch: int | None) -> Fetched:
    """Read from a position on; a reader checks what it gets, as the client does."""
    if replica.leader is None:
        stopped = replica.why_stopped is not None
        return Fetched(reason=Reason.PARTITION_OFFLINE if stopped else Reason.NOT_LEADER)
    log, machine = replica.log, replica.log.machine
    try:
        if last_epoch is not None and position > machine.log_start:
            diverging = log.epochs.diverges(position, last_epoch)
            if diverging is not None:
                return Fetched(reason=Reason.LOG_TRUNCATED, diverging_offset=diverging)
        machine.readable(position)
        batches = replica.read(position, _BYTES)
        for batch in batches:
            scan_batch(replica.partition, batch.data)
    except Refusal as refusal:
        return Fetched(reason=refusal.reason, log_start=machine.log_start)
    except CorruptData:
        return Fetched(reason=Reason.CORRUPT_DATA)
    records = [record for batch in batches for record in records_of(batch.data)]
    records = [record for record in records if record.offset >= position]
    if not records:
        return Fetched(next_offset=position, last_epoch=last_epoch)
    return Fetched(
        tuple((record.offset, record.value) for record in records),
        records[-1].offset + 1,
        records[-1].leader_epoch,
    )
