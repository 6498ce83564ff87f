"""The work of `produce`: from chunks of standard input to acknowledged records."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.framing import (
    DelimiterFramer,
    Framer,
    RecordTooLongError,
    SizeFramer,
)
from riverrun.cli.giving_up import GaveUpError, finished_or_stuck
from riverrun.cli.inputs import InputError, RecordReader, Run
from riverrun.cli.interrupts import Interrupts
from riverrun.cli.places import format_time
from riverrun.cli.progress import Progress
from riverrun.cli.sending import Sender, Totals
from riverrun.cli.session import complaint_of
from riverrun.cli.stdin import StandardInput
from riverrun.cli.topics import find_topic

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.produce import ProduceOptions

DELIVERY_TIMEOUT_S = 120.0
QUIET_S = 4.0
"""How long after a signal nothing has to be acknowledged before it is given up; leaving the producer
takes up to five seconds more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of `produce` has done."""

    topic: str
    totals: Totals
    exit_code: int

    def fields(self, seconds: float) -> dict[str, object]:
        """Tell it for programs."""
        return {
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

    def note(self, seconds: float) -> str:
        """Tell it for people."""
        return f"{self.totals.records} records acknowledged in {seconds:.1f} s"


async def produce_input(client: Client, options: ProduceOptions) -> Outcome:
    """Send what standard input holds, until it ends, fails or a signal comes.

    Raises:
        Complaint: a record could not be read or written; it says how many were acknowledged.
        RiverrunError: the topic is not there, or no broker answers.
    """
    if options.create:
        await client.admin().create_topic(options.topic, if_not_exists=True)
    else:
        await _find_topic(client, options)
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
        stopped = asyncio.Event()

        def stop() -> None:
            source.stop()
            stopped.set()

        def acknowledged() -> int:
            return producer.statistics().records_acknowledged

        with Interrupts(stop) as interrupts:
            work = _send_and_finish(source, sender, options)
            try:
                async with _progress(source):
                    wrong = await finished_or_stuck(work, stopped, acknowledged, quiet_s=QUIET_S)
            except GaveUpError:
                raise _given_up(sender, acknowledged()) from None
            finally:
                await sender.cancel()
        _complain(sender, wrong)
        return Outcome(options.topic, sender.totals, interrupts.exit_code)


def _given_up(sender: Sender, acknowledged: int) -> Complaint:
    """Tell what became of the records where a signal came and nothing went on."""
    return Complaint(
        f"stopped by a signal, and nothing was acknowledged for {QUIET_S:.0f} s: {acknowledged} "
        f"records were acknowledged, {sender.given - acknowledged} that were read were not; "
        "whether these are written nobody knows",
        Exit.UNKNOWN_OUTCOME,
        "INTERRUPTED",
        acknowledged,
    )


async def _send_and_finish(
    source: StandardInput, sender: Sender, options: ProduceOptions
) -> Complaint | None:
    """Send everything and wait until it is acknowledged; return what was wrong with the input."""
    wrong = await _send_all(source, sender, options)
    await sender.finish()
    return wrong


def _progress(source: StandardInput) -> Progress:
    """Make a bar that shows how much has been read: of a file how much of it, of a pipe only so much.

    What has been read and is not acknowledged yet is at most what the library buffers, 32 MiB.
    """
    shown = not os.isatty(0)
    return Progress(source.size_bytes, lambda: source.bytes_read, "bytes", shown=shown)


async def _find_topic(client: Client, options: ProduceOptions) -> None:
    """Fail before anything is read where the topic or the partition does not exist."""
    chosen = () if options.partition is None else (options.partition,)
    await find_topic(client, options.topic, chosen, made_by="give --create")


async def _send_all(
    source: StandardInput, sender: Sender, options: ProduceOptions
) -> Complaint | None:
    """Read, cut and send until the end; return what was wrong with the input, if anything."""
    framer: Framer = (
        SizeFramer(options.record_size)
        if options.record_size
        else DelimiterFramer(options.delimiter)
    )
    reader = RecordReader(options.form, options.key_separator, options.null_value, options.headers)

    async def send(frames: list[bytes]) -> None:
        before = reader.like_seconds
        parsed = reader.read(frames)
        if before is None and reader.like_seconds is not None:
            write_note(
                f"note: timestamp {reader.like_seconds} looks like seconds; it is taken as "
                f"milliseconds since 1970: {format_time(reader.like_seconds)}"
            )
        for run in parsed.runs:
            placed = options.partition if run.partition is None else run.partition
            await sender.send(Run(run.records, placed))
        if parsed.error is not None:
            raise parsed.error

    try:
        async for chunk in source:
            await send(framer.feed(chunk))
        if source.ended:
            await send(framer.finish())
    except (InputError, RecordTooLongError) as error:
        return Complaint(str(error), Exit.USAGE, "INVALID_INPUT")
    except OSError as error:
        return Complaint(f"standard input cannot be read: {error}", reason="INPUT_FAILED")
    return None


def _complain(sender: Sender, wrong: Complaint | None) -> None:
    """Raise what went wrong, with the number of records that were written all the same."""
    if sender.error is not None:
        wrong = complaint_of(sender.error)
    if wrong is None:
        return
    wrong.acknowledged = sender.totals.records
    wrong.message = f"{wrong.message.rstrip('.')}; {wrong.acknowledged} records were acknowledged"
    raise wrong
