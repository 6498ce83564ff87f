"""What the frames of standard input mean: raw values, keys and values, hex, base64 or JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from riverrun._core.encoding import size_bound
from riverrun._core.records import NewRecord
from riverrun.cli.admission import Admission, NotTakenError
from riverrun.cli.exits import Exit
from riverrun.cli.jsonlines import JsonLineError, ParsedRecord, read_record

Sendable: TypeAlias = bytes | tuple[bytes | None, bytes | None] | NewRecord | None
InputFormat: TypeAlias = Literal["raw", "json", "hex", "base64"]


class InputError(ValueError):
    """A frame that is no record, or not one for the topic; the message names it by its number, from 1.

    Attributes:
        code: the exit code.
        reason: a word to program against.
        not_taken: the topic does not take it, as far as is known.
    """

    def __init__(self, message: str, refused: NotTakenError | None = None) -> None:
        super().__init__(message)
        self.code = Exit.USAGE if refused is None else refused.code
        self.reason = "INVALID_INPUT" if refused is None else refused.reason
        self.not_taken = refused is not None


@dataclass(frozen=True, slots=True)
class Run:
    """Records for one partition, or for wherever their keys send them."""

    records: Sequence[Sendable]
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of some frames: runs to be sent, and what was wrong with the frame behind."""

    runs: Sequence[Run]
    error: InputError | None = None


SECONDS_OF_OUR_DAYS = (1_000_000_000, 10_000_000_000)
"""As ms since 1970 these lie in the first four months of it, where hardly any record belongs."""


@dataclass(slots=True)
class RecordReader:
    """Turns frames into records.

    Attributes:
        form: what a frame holds.
        key_separator: cuts a frame into key and value at its first place.
        null: a key or value of exactly these bytes is absent.
        headers: what every record gets, before its own.
        noun: what a frame is called in messages: a line where newlines end them.
        admission: what the topic takes.
        count: how many frames were read, those that are no records included.
        blank: how many of those were passed over.
        like_seconds: the first timestamp that would be of our days if it were in seconds.
    """

    form: InputFormat = "raw"
    key_separator: bytes | None = None
    null: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    noun: Literal["line", "record"] = "record"
    admission: Admission = field(default_factory=Admission)
    count: int = field(default=0, init=False)
    blank: int = field(default=0, init=False)
    like_seconds: int | None = field(default=None, init=False)
    _measured: bool = field(default=False, init=False)

    def read(self, frames: list[bytes]) -> Parsed:
        """Turn frames into records, up to the first that is none.

        Records without a partition of their own keep their order, and so do those of each
        partition.
        """
        longest = max(map(len, frames), default=0) + size_bound(None, None, self.headers)
        self._measured = self.admission.may_be_too_large(longest)
        if self.form == "json":
            return self._read_json(frames)
        if not self._measured and self.form == "raw" and self.null is None and not self.headers:
            records = self._read_plain(frames)
            if records is not None:
                self.count += len(frames)
                return Parsed([Run(records)] if records else [])
        return self._read_each(frames)

    def _read_plain(self, frames: list[bytes]) -> Sequence[Sendable] | None:
        """Take frames as values, or cut them all at once; None where one has no separator."""
        if self.key_separator is None:
            return frames
        cut = [frame.partition(self.key_separator) for frame in frames]
        if not all(separator for _, separator, _ in cut):
            return None
        return [(key, value) for key, _, value in cut]

    def _read_each(self, frames: list[bytes]) -> Parsed:
        """Turn frames into records one by one, up to the first that is none."""
        records: list[Sendable] = []
        error = None
        for frame in frames:
            self.count += 1
            try:
                records.append(self._record(frame))
            except NotTakenError as refused:
                error = self._wrong(str(refused), refused)
                break
            except InputError as wrong:
                error = wrong
                break
        return Parsed([Run(records)] if records else [], error)

    def _record(self, frame: bytes) -> Sendable:
        """Turn one frame into a record."""
        decode = self._decoder()
        if self.key_separator is None:
            key, value = None, decode(frame)
        else:
            first, separator, rest = frame.partition(self.key_separator)
            if not separator:
                raise self._wrong(
                    f"no key separator {_shown(self.key_separator)} in {_shown(frame)}; "
                    "every record has one where --key-separator is given"
                )
            key, value = decode(first), decode(rest)
        if self._measured:
            self.admission.check_size(key, value, self.headers)
        if self.headers:
            return NewRecord(value, key, self.headers)
        return (key, value)

    def _decoder(self) -> Callable[[bytes], bytes | None]:
        """Choose how keys and values are read."""
        match self.form:
            case "hex":
                return self._hex
            case "base64":
                return self._base64
            case _:
                return self._raw

    def _raw(self, text: bytes) -> bytes | None:
        """Take bytes as they are."""
        return None if text == self.null else text

    def _hex(self, text: bytes) -> bytes | None:
        """Read hexadecimal digits, white space between bytes allowed."""
        if text == self.null:
            return None
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            raise self._wrong(f"{_shown(text)} is not hexadecimal: two digits a byte") from None

    def _base64(self, text: bytes) -> bytes | None:
        """Read base64 of the standard alphabet, with its padding."""
        if text == self.null:
            return None
        try:
            return base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._wrong(f"{_shown(text)} is not base64: {error}") from None

    def _read_json(self, frames: list[bytes]) -> Parsed:
        """Read a JSON object from each frame that is not blank."""
        by_partition: dict[int | None, list[Sendable]] = {}
        error = None
        for frame in frames:
            self.count += 1
            if not frame.strip():
                self.blank += 1
                continue
            try:
                record = self._read_object(frame)
            except JsonLineError as wrong:
                error = self._wrong(str(wrong))
                break
            except NotTakenError as refused:
                error = self._wrong(str(refused), refused)
                break
            by_partition.setdefault(record.partition, []).append(self._json_record(record))
        runs = [Run(records, partition) for partition, records in by_partition.items()]
        return Parsed(runs, error)

    def _read_object(self, frame: bytes) -> ParsedRecord:
        """Read one JSON object, and look whether the topic takes what it says."""
        record = read_record(frame)
        self.admission.check_partition(record.partition)
        self.admission.check_timestamp(record.timestamp_ms)
        if self._measured:
            headers = (*self.headers, *record.headers)
            self.admission.check_size(record.key, record.value, headers, record.timestamp_ms)
        return record

    def _json_record(self, record: ParsedRecord) -> Sendable:
        """Choose the leanest form that holds a parsed record."""
        at = record.timestamp_ms
        if at is not None and self.like_seconds is None and SECONDS_OF_OUR_DAYS[0] <= at:
            self.like_seconds = at if at < SECONDS_OF_OUR_DAYS[1] else None
        headers = (*self.headers, *record.headers)
        if headers or record.timestamp_ms is not None:
            return NewRecord(record.value, record.key, headers, record.timestamp_ms)
        return (record.key, record.value)

    def _wrong(self, why: str, refused: NotTakenError | None = None) -> InputError:
        """Name the frame that is being read."""
        return InputError(f"{self.noun} {self.count} of standard input: {why}", refused)


def _shown(data: bytes) -> str:
    """Quote the beginning of some bytes for a message."""
    return repr(data[:60].decode(errors="backslashreplace")) + ("..." if len(data) > 60 else "")
