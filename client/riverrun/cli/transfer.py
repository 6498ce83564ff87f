"""Reads, cuts and sends standard input up to the first record that cannot be sent, and knows how far it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from riverrun.cli.admission import Admission
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.extent import Extent
from riverrun.cli.framing import DelimiterFramer, Framer, RecordTooLongError, SizeFramer
from riverrun.cli.inputs import InputError, RecordReader, Run
from riverrun.cli.places import format_time
from riverrun.cli.sending import Sender
from riverrun.cli.stdin import StandardInput
from riverrun.errors import RiverrunError

if TYPE_CHECKING:
    from riverrun.cli.produce import ProduceOptions


class Transfer:
    """One run of `produce` through its input.

    Args:
        source: the input.
        sender: what it goes to.
        options: how records are cut, read and placed.
        admission: what the topic takes, as it was at the start.
        ask: asks for that again: before a record is refused, for it may have changed.

    Attributes:
        noun: what a record of the input is called.
    """

    def __init__(
        self,
        source: StandardInput,
        sender: Sender,
        options: ProduceOptions,
        admission: Admission,
        ask: Callable[[], Awaitable[Admission]],
    ) -> None:
        by_line = options.record_size is None and options.delimiter == b"\n"
        self.noun: Literal["line", "record"] = "line" if by_line else "record"
        self._source = source
        self._sender = sender
        self._partition = options.partition
        self._ask = ask
        self._framer: Framer = (
            SizeFramer(options.record_size)
            if options.record_size
            else DelimiterFramer(options.delimiter)
        )
        self._reader = RecordReader(
            options.form,
            options.key_separator,
            options.null_value,
            options.headers,
            self.noun,
            admission,
        )
        self._refused: int | None = None

    async def run(self) -> Complaint | None:
        """Send everything and wait until it is acknowledged; return what was wrong with the input."""
        wrong = await self._send_all()
        await self._sender.finish()
        return wrong

    def extent(self, acknowledged: int) -> Extent:
        """Tell how far it has come; `acknowledged` is how many records are."""
        unsent_from = self._reader.count + 1 if self._refused is None else self._refused
        to: int | None = None
        if acknowledged == self._sender.given and self._sender.error is None:
            to = unsent_from - 1
        elif not self._reader.blank:
            to = self._sender.acknowledged_first
        return Extent(acknowledged, unsent_from, to, self.noun)

    async def _send_all(self) -> Complaint | None:
        """Read, cut and send until the end; return what was wrong with the input, if anything."""
        try:
            async for chunk in self._source:
                await self._send(self._framer.feed(chunk))
            if self._source.ended:
                await self._send(self._framer.finish())
        except RecordTooLongError as error:
            return self._refuse(f"{error}", self._reader.count + 1, Exit.USAGE, "INVALID_INPUT")
        except InputError as error:
            return self._refuse(str(error), self._reader.count, error.code, error.reason)
        except OSError as error:
            return Complaint(f"standard input cannot be read: {error}", reason="INPUT_FAILED")
        return None

    async def _send(self, frames: list[bytes]) -> None:
        """Send what frames mean.

        Raises:
            InputError: of the first that is no record for this topic; those before it are sent.
        """
        reader = self._reader
        asked_at = 0
        while frames:
            count, like_seconds = reader.count, reader.like_seconds
            parsed = reader.read(frames)
            if like_seconds is None and reader.like_seconds is not None:
                write_note(
                    f"note: timestamp {reader.like_seconds} looks like seconds; it is taken as "
                    f"milliseconds since 1970: {format_time(reader.like_seconds)}"
                )
            for run in parsed.runs:
                placed = self._partition if run.partition is None else run.partition
                await self._sender.send(Run(run.records, placed))
            if parsed.error is None:
                return
            again = parsed.error.not_taken and reader.count != asked_at
            if not (again and await self._topic_has_changed()):
                raise parsed.error
            asked_at = reader.count
            reader.count -= 1
            frames = frames[reader.count - count :]

    async def _topic_has_changed(self) -> bool:
        """Ask once more what the topic takes; return whether that is something else now."""
        try:
            fresh = await self._ask()
        except RiverrunError:
            return False
        changed = fresh != self._reader.admission
        self._reader.admission = fresh
        return changed

    def _refuse(self, text: str, number: int, code: Exit, reason: str) -> Complaint:
        """Name the record at which reading has stopped."""
        self._refused = number
        name = f"{self.noun} {number} of standard input"
        told = text if text.startswith(name) else f"{name}: {text}"
        return Complaint(told, code, reason, {"line": number})
