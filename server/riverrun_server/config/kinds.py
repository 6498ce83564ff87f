"""The kinds of values that settings have: what is accepted, from text or TOML, and how it is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from riverrun_server.core.cluster.quantities import parse_duration_ms, parse_size_bytes
from riverrun_server.rpc.listener import Address

T = TypeVar("T")

# Largest first: what is shown is whole in its unit.
_SIZES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
_TIMES_MS: Final = (
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
)


class Kind(Protocol[T]):
    """Reads and shows the values of one setting."""

    @property
    def accepts(self) -> str:
        """What is accepted, as it follows the word "expected"."""
        ...

    def read(self, raw: object) -> T:
        """Convert what stood in a file (a TOML value) or a flag or variable (text).

        Raises:
            ValueError: it is not accepted; the text says why where `accepts` does not.
        """
        ...

    def show(self, value: T) -> str:
        """Write a value as a person would."""
        ...


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number."""

    low: int
    high: int

    @property
    def accepts(self) -> str:
        """The range."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, raw: object) -> int:
        """Convert a number or its digits."""
        return _within(_whole(raw), self.low, self.high)

    def show(self, value: int) -> str:
        """Write the digits."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, also as text with a unit; -1 for unlimited where that is allowed."""

    low: int
    high: int
    unlimited: bool = False

    @property
    def accepts(self) -> str:
        """The range and the units."""
        tail = ", or -1 for unlimited" if self.unlimited else ""
        return f"a size from {_sized(self.low)} to {_sized(self.high)} such as 64MiB{tail}"

    def read(self, raw: object) -> int:
        """Convert bytes, or text with a unit."""
        size = parse_size_bytes(raw) if isinstance(raw, str) else _whole(raw)
        if self.unlimited and size == -1:
            return -1
        return _within(size, self.low, self.high)

    def show(self, value: int) -> str:
        """Write it in the largest unit that fits exactly."""
        return "unlimited" if value == -1 else _sized(value)


@dataclass(frozen=True, slots=True)
class Millis:
    """A time in milliseconds, also as text with a unit; -1 for unlimited where that is allowed."""

    low: int
    high: int
    unlimited: bool = False

    @property
    def accepts(self) -> str:
        """The range and the units."""
        tail = ", or -1 for unlimited" if self.unlimited else ""
        return f"a time from {_timed(self.low)} to {_timed(self.high)} such as 1500ms or 7d{tail}"

    def read(self, raw: object) -> int:
        """Convert milliseconds, or text with a unit."""
        time = parse_duration_ms(raw) if isinstance(raw, str) else _whole(raw)
        if self.unlimited and time == -1:
            return -1
        return _within(time, self.low, self.high)

    def show(self, value: int) -> str:
        """Write it in the largest unit that fits exactly."""
        return "unlimited" if value == -1 else _timed(value)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time in seconds, also as text with a unit."""

    low: float
    high: float

    @property
    def accepts(self) -> str:
        """The range and the units."""
        return f"a time from {self.low:g} to {self.high:g} seconds, or text such as 500ms or 10s"

    def read(self, raw: object) -> float:
        """Convert seconds, or text with a unit."""
        if isinstance(raw, str) and raw[-1:].isalpha():
            return _within(parse_duration_ms(raw) / 1000, self.low, self.high)
        if isinstance(raw, int | float | str) and not isinstance(raw, bool):
            return _within(float(raw), self.low, self.high)
        raise ValueError

    def show(self, value: float) -> str:
        """Write it with its unit."""
        return f"{value:g}s"


@dataclass(frozen=True, slots=True)
class Switch:
    """Yes or no."""

    @property
    def accepts(self) -> str:
        """Both words."""
        return "true or false"

    def read(self, raw: object) -> bool:
        """Convert a truth value or its word."""
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in {"true", "false"}:
            return raw.lower() == "true"
        raise ValueError

    def show(self, value: bool) -> str:
        """Write the word."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Text:
    """Text that matches a pattern as a whole."""

    pattern: str
    accepts: str

    def read(self, raw: object) -> str:
        """Check the text."""
        if not isinstance(raw, str) or re.fullmatch(self.pattern, raw) is None:
            raise ValueError
        return raw

    def show(self, value: str) -> str:
        """Write it as it is."""
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def accepts(self) -> str:
        """All words."""
        return " or ".join(self.words)

    def read(self, raw: object) -> str:
        """Check the word."""
        if not isinstance(raw, str) or raw not in self.words:
            raise ValueError
        return raw

    def show(self, value: str) -> str:
        """Write the word."""
        return value


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory, relative to the working directory unless absolute."""

    accepts: str = "the path of a directory"

    def read(self, raw: object) -> Path:
        """Convert text; `~` is the user's home."""
        if isinstance(raw, Path):
            return raw
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError
        return Path(raw).expanduser()

    def show(self, value: Path) -> str:
        """Write the path."""
        return str(value)


@dataclass(frozen=True, slots=True)
class File:
    """A file, relative to the working directory unless absolute."""

    accepts: str = "the path of a file"

    def read(self, raw: object) -> Path:
        """Convert text; `~` is the user's home."""
        return Folder().read(raw)

    def show(self, value: Path) -> str:
        """Write the path."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port."""

    accepts: str = "HOST:PORT with a port from 0 to 65535, an IPv6 address in brackets"

    def read(self, raw: object) -> Address:
        """Convert text."""
        if isinstance(raw, Address):
            return raw
        if isinstance(raw, str):
            return Address.parse(raw)
        raise ValueError

    def show(self, value: Address) -> str:
        """Write it as it is read."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Maybe(Generic[T]):
    """A value that something else decides while it is unset."""

    kind: Kind[T]
    unset: str

    @property
    def accepts(self) -> str:
        """What the value itself accepts."""
        return self.kind.accepts

    def read(self, raw: object) -> T | None:
        """Convert what the value itself accepts."""
        return self.kind.read(raw)

    def show(self, value: T | None) -> str:
        """Write the value, or what decides."""
        return self.unset if value is None else self.kind.show(value)


def _whole(raw: object) -> int:
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9_]{1,24}", raw):
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError


N = TypeVar("N", int, float)


def _within(value: N, low: float, high: float) -> N:
    if not low <= value <= high:
        raise ValueError
    return value


def _sized(value: int) -> str:
    return _in_units(value, _SIZES)


def _timed(value: int) -> str:
    return _in_units(value, _TIMES_MS)


def _in_units(value: int, units: tuple[tuple[str, int], ...]) -> str:
    for unit, factor in units:
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}{units[-1][0]}"
