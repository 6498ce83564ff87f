"""Tables and lists of fields: plain and aligned for programs and pipes, fitted for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from riverrun.cli.colours import STATES

Cell: TypeAlias = str | int
WORD_LENGTH = 16
"""A column of nothing longer is not folded."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; numbers stand to the right.

    Attributes:
        headings: of the columns.
        rows: a cell for each heading.
        states: the heading of the column that has states, which are coloured.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)
    states: str = ""


def render_plain(table: Table) -> str:
    """Align columns with two spaces between; nothing is cut, so pipes see every character."""
    lines = [[str(cell) for cell in row] for row in (table.headings, *table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.headings))]
    right = _numeric_columns(table)
    return "".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def render_fields(fields: Mapping[str, Cell]) -> str:
    """Write one `name  value` a line, values aligned."""
    width = max(map(len, fields), default=0)
    return "".join(
        f"{name.ljust(width)}  {value}".rstrip() + "\n" for name, value in fields.items()
    )


def print_table(table: Table) -> None:
    """Write a table to standard output: by rich on a terminal that has it, else plain."""
    if not (sys.stdout.isatty() and _print_rich(table)):
        sys.stdout.write(render_plain(table))


def print_fields(fields: Mapping[str, Cell]) -> None:
    """Write a list of fields to standard output."""
    sys.stdout.write(render_fields(fields))


def print_json(value: object) -> None:
    """Write one JSON document on one line to standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def shown_bytes(count: int) -> str:
    """Write a number of bytes for people: 1023 B, 4.0 KiB, 1.5 GiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def joined(items: Iterable[object]) -> str:
    """Write a list in one cell; a dash where it is empty."""
    return ",".join(map(str, items)) or "-"


def _numeric_columns(table: Table) -> list[bool]:
    """Say of each column whether its cells are numbers, dashes for unknown ones aside."""
    columns = [
        [row[column] for row in table.rows if row[column] != "-"]
        for column in range(len(table.headings))
    ]
    return [bool(cells) and all(isinstance(cell, int) for cell in cells) for cells in columns]


def _print_rich(table: Table) -> bool:
    """Draw a table that fits the terminal; False where rich is not installed.

    Long text is folded into several lines; numbers and short words are not.
    """
    try:
        import shutil  # noqa: PLC0415 - brings bz2 and lzma along

        from rich.console import Console  # noqa: PLC0415 - an optional extra, and 60 ms
        from rich.table import Table as RichTable  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    drawn = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column, number in enumerate(_numeric_columns(table)):
        short = all(len(str(row[column])) <= WORD_LENGTH for row in table.rows)
        drawn.add_column(
            table.headings[column],
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number or short,
        )
    for row in table.rows:
        cells = zip(table.headings, map(str, row), strict=True)
        drawn.add_row(
            *(
                Text(cell, STATES.get(cell, "") if name == table.states else "")
                for name, cell in cells
            )
        )
    Console(width=shutil.get_terminal_size().columns).print(drawn)
    return True
