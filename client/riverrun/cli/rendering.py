"""How `consume` writes records: values, a format, or JSON; each followed by the delimiter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from riverrun.cli.jsonlines import write_record
from riverrun.cli.template import Printable, Template


class Batch(Protocol):
    """What a renderer needs of a run of records."""

    def values(self) -> Sequence[bytes | None]:
        """Give the value of each record."""

    def __len__(self) -> int:
        """Count the records."""

    def __iter__(self) -> Iterator[Printable]:
        """Give each record with all its parts."""


Renderer: TypeAlias = Callable[[Batch, int], bytes]
"""Writes the first so many records of a batch."""


def value_renderer(delimiter: bytes, null: bytes = b"") -> Renderer:
    """Write values alone, `null` for those that are absent."""

    def render(batch: Batch, count: int) -> bytes:
        values = batch.values()
        if count < len(values):
            values = values[:count]
        try:
            text = delimiter.join(values)  # type: ignore[arg-type]  # a tombstone raises
        except TypeError:
            text = delimiter.join([null if value is None else value for value in values])
        return text + delimiter if values else b""

    return render


def template_renderer(template: Template, delimiter: bytes) -> Renderer:
    r"""Write records by a format; one that ends with the delimiter, as `'%s\n'`, gets no second."""
    suffix = b"" if delimiter and template.tail.endswith(delimiter) else delimiter

    def render(batch: Batch, count: int) -> bytes:
        lines = [template.render(record) for record in islice(batch, count)]
        return suffix.join(lines) + suffix if lines else b""

    return render


def json_renderer(delimiter: bytes) -> Renderer:
    """Write one JSON object for each record."""

    def render(batch: Batch, count: int) -> bytes:
        lines = [write_record(record) for record in islice(batch, count)]
        return delimiter.join(lines) + delimiter if lines else b""

    return render
