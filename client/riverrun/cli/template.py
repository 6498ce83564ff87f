r"""Format strings of `consume --format`, such as `'%t %p %o %k %s'`, compiled once.

    %t topic      %k key    %K its length (-1 where absent)    %T timestamp, ms since 1970
    %p partition  %s value  %S its length (-1 for a tombstone) %h headers as name=value,...
    %o offset     %%  %

Escapes (`\n`, `\t`, `\0`, `\xHH`, ...) stand for their bytes. Keys and values are written as the
bytes they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from riverrun.cli.escapes import unescape


class Printable(Protocol):
    """What a format can show of a record."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


Reader: TypeAlias = Callable[[Printable], object]
_FIELD = re.compile(r"%(.|$)", re.DOTALL)
FIELDS = "%t %p %o %k %s %h %T %K %S %%"


class TemplateError(ValueError):
    """A format that names a field that does not exist; the message lists those that do."""


class Template:
    """A compiled format: a pattern of bytes and the fields that fill it.

    Attributes:
        tail: what the format ends with behind its last field, as bytes.
    """

    def __init__(self, text: str, *, null: bytes = b"") -> None:
        """Compile a format; `null` stands for an absent key and for the value of a tombstone.

        Raises:
            TemplateError: a field does not exist, or the text ends in a lone `%`.
            EscapeError: an escape does not exist.
        """
        readers = _readers(null)
        pattern = bytearray()
        self._fields: list[Reader] = []
        self.tail = b""
        at = 0
        for found in _FIELD.finditer(text):
            literal = unescape(text[at : found.start()])
            at = found.end()
            pattern += literal.replace(b"%", b"%%")
            if found[1] == "%":
                pattern += b"%%"
                self.tail += literal + b"%"
            elif found[1] in readers:
                conversion, reader = readers[found[1]]
                pattern += conversion
                self._fields.append(reader)
                self.tail = b""
            else:
                raise TemplateError(f"the format has no field {found[0]!r}; there are {FIELDS}")
        literal = unescape(text[at:])
        self.tail += literal
        self._pattern = bytes(pattern + literal.replace(b"%", b"%%"))

    def render(self, record: Printable) -> bytes:
        """Write one record."""
        return self._pattern % tuple([field(record) for field in self._fields])


def _readers(null: bytes) -> dict[str, tuple[bytes, Reader]]:
    """Name each field's conversion and how it is read from a record."""

    def shown(data: bytes | None) -> bytes:
        return null if data is None else data

    def length(data: bytes | None) -> int:
        return -1 if data is None else len(data)

    def headers(record: Printable) -> bytes:
        return b",".join(name.encode() + b"=" + value for name, value in record.headers)

    return {
        "t": (b"%b", lambda record: record.topic.encode()),
        "p": (b"%d", lambda record: record.partition),
        "o": (b"%d", lambda record: record.offset),
        "T": (b"%d", lambda record: record.timestamp_ms),
        "k": (b"%b", lambda record: shown(record.key)),
        "s": (b"%b", lambda record: shown(record.value)),
        "h": (b"%b", headers),
        "K": (b"%d", lambda record: length(record.key)),
        "S": (b"%d", lambda record: length(record.value)),
    }
