"""The work of `produce`: from chunks of standard input to acknowledged records."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riverrun.cli.admission import Admission
from riverrun.cli.counts import acknowledged, counted
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.extent import Extent
from riverrun.cli.framing import RECORD_BYTES_MAX
from riverrun.cli.giving_up import GaveUpError, finished_or_stuck
from riverrun.cli.interrupts import Interrupts
from riverrun.cli.progress import Progress
from riverrun.cli.sending import Sender, Totals
from riverrun.cli.session import complaint_of
from riverrun.cli.stdin import StandardInput
from riverrun.cli.topics import describe_topic
from riverrun.cli.transfer import Transfer
from riverrun.cli.waiting import StoppedError, unless
from riverrun.errors import RiverrunError

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.produce import ProduceOptions

DELIVERY_TIMEOUT_S = 120.0
QUIET_S = 4.0
"""How long after a signal nothing has to be acknowledged before it is given up; leaving the producer
takes up to five seconds more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of `produce` has done: all there was to do, or up to a signal."""

    topic: str
    totals: Totals
    extent: Extent
    stopped_by: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """What shells say of a process that a signal ended; 0 where none came."""
        return 128 + self.stopped_by if self.stopped_by else 0

    def fields(self, seconds: float) -> dict[str, object]:
        """Tell it for programs."""
        fields: dict[str, object] = {
            "topic": self.topic,
            "records": self.totals.records,
            "bytes": self.totals.bytes,
            "batches": self.totals.batches,
            "seconds": round(seconds, 6),
            "offsets": {
                str(partition): {"first": first, "next": behind}
                for partition, (first, behind) in sorted(self.totals.offsets.items())
            },
        }
        if self.stopped_by is not None:
            fields["stopped_by"] = self.stopped_by.name
            fields["unsent_from_line"] = self.extent.unsent_from
        return fields

    def note(self, seconds: float) -> str:
        """Tell it for people."""
        if self.stopped_by is not None:
            return f"note: stopped by {self.stopped_by.name}: {self.extent.told()}"
        return f"{counted(self.totals.records, 'record')} acknowledged in {seconds:.1f} s"


async def produce_input(client: Client, options: ProduceOptions) -> Outcome:
    """Send what standard input holds, until it ends, fails or a signal comes.

    Raises:
        Complaint: a record could not be read or written, the topic is not there, or no broker answers;
            it says how many records were acknowledged.
    """
    stopped = asyncio.Event()
    with Interrupts(stopped.set) as interrupts:
        try:
            admission = await unless(stopped, _prepared(client, options))
        except StoppedError:
            return Outcome(options.topic, Totals(), Extent(0, 1, 0), interrupts.received)
        except RiverrunError as error:
            raise _before_the_first(complaint_of(error)) from error
        except Complaint as complaint:
            raise _before_the_first(complaint) from None
        return await _produce(client, options, admission, stopped, interrupts)


async def _produce(
    client: Client,
    options: ProduceOptions,
    admission: Admission,
    stopped: asyncio.Event,
    interrupts: Interrupts,
) -> Outcome:
    """Send everything to a topic that is there."""
    producer = client.producer(
        acks=options.acks,
        compression=options.compression,
        partitioner=options.partitioner,
        delivery_timeout_s=options.timeout_s or DELIVERY_TIMEOUT_S,
    )
    async with producer:
        if os.isatty(0):
            write_note("note: reading records from the terminal; Ctrl-D ends")
        source = StandardInput()
        sender = Sender(producer, options.topic, failed=source.abandon)
        transfer = Transfer(source, sender, options, admission, lambda: _ask(client, options))
        stopping = asyncio.create_task(_stop_reading(source, stopped), name="riverrun-stop")

        def progress() -> int:
            return producer.statistics().records_acknowledged

        try:
            async with _progress(source):
                wrong = await finished_or_stuck(transfer.run(), stopped, progress, quiet_s=QUIET_S)
        except GaveUpError:
            raise _given_up(transfer, sender, progress()) from None
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await sender.cancel()
        _complain(transfer, sender, wrong)
        extent = transfer.extent(sender.totals.records)
        return Outcome(options.topic, sender.totals, extent, interrupts.received)


async def _stop_reading(source: StandardInput, stopped: asyncio.Event) -> None:
    """End reading once a signal comes; what was read by then is sent."""
    await stopped.wait()
    source.stop()


async def _prepared(client: Client, options: ProduceOptions) -> Admission:
    """Fail before anything is read where the topic or the partition does not exist."""
    if options.create:
        await client.admin().create_topic(options.topic, if_not_exists=True)
    admission = await _ask(client, options)
    if options.partition is not None and options.partition >= (admission.partitions or 0):
        raise Complaint(
            f"topic {options.topic} has no partition {options.partition}; it has "
            f"{admission.partitions}, from 0",
            Exit.NOT_FOUND,
            "PARTITION_NOT_FOUND",
        )
    return admission


async def _ask(client: Client, options: ProduceOptions) -> Admission:
    """Ask what the topic takes."""
    described = await describe_topic(client, options.topic, made_by="give --create")
    settings = {entry.key: entry.value for entry in described.configs}
    allowed = settings.get("max.batch.bytes", "")
    limit = min(int(allowed), RECORD_BYTES_MAX) if allowed.isdecimal() else RECORD_BYTES_MAX
    partitions = described.topic.partitions
    if options.form != "json":
        return Admission(options.topic, limit, partitions)
    info = await client.server_info()
    ahead_max_ms = round(1000 * info.limits.timestamp_ahead_max_s)
    return Admission(options.topic, limit, partitions, info.now_ms, ahead_max_ms)


def _progress(source: StandardInput) -> Progress:
    """Make a bar that shows how much has been read: of a file how much of it, of a pipe only so much.

    What has been read and is not acknowledged yet is at most what the library buffers, 32 MiB.
    """
    shown = not os.isatty(0)
    return Progress(source.size_bytes, lambda: source.bytes_read, "bytes", shown=shown)


def _before_the_first(complaint: Complaint) -> Complaint:
    """Say that nothing was read, let alone sent."""
    complaint.message = f"{complaint.message.rstrip('.')}; {acknowledged(0)}"
    complaint.more["acknowledged_records"] = 0
    return complaint


def _given_up(transfer: Transfer, sender: Sender, count: int) -> Complaint:
    """Tell what became of the records where a signal came and nothing went on."""
    unsent = transfer.extent(count).unsent_from
    return Complaint(
        f"stopped by a signal, and nothing was acknowledged for {QUIET_S:.0f} s: "
        f"{acknowledged(count)}, {sender.given - count} that were read were not; whether these are "
        f"written nobody knows; nothing from {transfer.noun} {unsent} on was sent",
        Exit.UNKNOWN_OUTCOME,
        "INTERRUPTED",
        {"acknowledged_records": count, "unsent_from_line": unsent},
    )


def _complain(transfer: Transfer, sender: Sender, wrong: Complaint | None) -> None:
    """Raise what went wrong, with what was written all the same and how far it came."""
    extent = transfer.extent(sender.totals.records)
    if sender.error is not None:
        wrong = complaint_of(sender.error)
    if wrong is None:
        return
    wrong.message = f"{wrong.message.rstrip('.')}; {extent.told()}"
    wrong.more.update(extent.fields())
    if extent.acknowledged:
        wrong.partly()
    raise wrong
