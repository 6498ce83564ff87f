"""Tables for programs and for people."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from riverrun.cli import tables
from riverrun.cli.tables import Table, joined, print_table, render_fields, render_plain, shown_bytes


class Terminal(io.StringIO):
    """A standard output that people look at."""

    def isatty(self):
        """Say so."""
        return True


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    table = Table(("TOPIC", "PARTITIONS", "NOTE"), [("a", 1, ""), ("longer", 128, "x y")])
    assert render_plain(table) == (
        "TOPIC   PARTITIONS  NOTE\na                1\nlonger         128  x y\n"
    )


def test_a_table_without_rows_has_its_headings():
    assert render_plain(Table(("A", "B"))) == "A  B\n"


def test_fields_are_aligned():
    assert render_fields({"id": 1, "a longer name": ""}) == "id             1\na longer name\n"
    assert render_fields({}) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_for_people(size, text):
    assert shown_bytes(size) == text


def test_an_empty_list_is_a_dash():
    assert joined([]) == "-"
    assert joined([1, 2]) == "1,2"


def test_a_table_fits_the_terminal_and_keeps_every_character(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    print_table(Table(("TOPIC", "NOTE"), [("t" * 30, "[bold]not markup[/bold]" * 3)]))
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert drawn != terminal.getvalue()
    assert all(len(line) <= 40 for line in drawn.splitlines())
    assert drawn.count("t") == 30 + 3
    assert drawn.count("[/bold]") >= 1


def test_a_table_is_plain_where_rich_is_missing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    print_table(Table(("A", "B"), [("x", 1)]))
    assert terminal.getvalue() == "A  B\nx  1\n"


def test_a_table_in_a_pipe_has_no_escapes_and_imports_no_rich():
    script = (
        "import sys; from riverrun.cli.tables import *; print_table(Table(('A',), [('x',)])); "
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"A\nx\n"
    assert tables.__doc__
