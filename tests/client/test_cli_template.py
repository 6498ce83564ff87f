"""Formats and escapes, with golden outputs."""

from __future__ import annotations

import os

import pytest

from riverrun import Record
from riverrun.cli.escapes import EscapeError, unescape
from riverrun.cli.template import Template, TemplateError

FULL = Record("t", 3, 42, 1_700_000_000_123, b"k\xff", b"v\n", (("a", b"1"), ("b", b"\0")))
BARE = Record("topic.é", 0, 0, 0, None, None)


@pytest.mark.parametrize(
    ("template", "full", "bare"),
    [
        ("%s", b"v\n", b""),
        ("%k:%s", b"k\xff:v\n", b":"),
        ("%t %p %o %T", b"t 3 42 1700000000123", "topic.é 0 0 0".encode()),
        ("%h", b"a=1,b=\0", b""),
        ("%K/%S", b"2/2", b"-1/-1"),
        ("100%% %o", b"100% 42", b"100% 0"),
        ("%%s%%", b"%s%", b"%s%"),
        (r"%o\t%p\x41\0", b"42\t3A\0", b"0\t0A\0"),
        ("", b"", b""),
        ("é", "é".encode(), "é".encode()),
        (r"\\%o", b"\\42", b"\\0"),
    ],
)
def test_formats_are_written_as_they_always_were(template, full, bare):
    compiled = Template(template)
    assert compiled.render(FULL) == full
    assert compiled.render(BARE) == bare


def test_null_stands_for_what_is_absent_and_not_for_what_is_empty():
    compiled = Template("%k|%s", null=b"NULL")
    assert compiled.render(BARE) == b"NULL|NULL"
    assert compiled.render(FULL._replace(key=b"", value=b"")) == b"|"


@pytest.mark.parametrize("template", ["%", "%x", "a%", "%%%", "% s", "%1"])
def test_a_field_that_does_not_exist_is_refused_with_those_that_do(template):
    with pytest.raises(TemplateError, match="%t %p %o"):
        Template(template)


@pytest.mark.parametrize(
    ("template", "tail"),
    [
        (r"%s\n", b"\n"),
        ("%s", b""),
        (r"a%%\n", b"a%\n"),
        (r"\n%s", b""),
        (r"%s %%", b" %"),
        ("%%%s", b""),
    ],
)
def test_a_template_knows_what_it_ends_with(template, tail):
    assert Template(template).tail == tail


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"\n\t\r\0\e\\", b"\n\t\r\0\x1b\\"),
        (r"\x00\xfF", b"\x00\xff"),
        ("plain é", "plain é".encode()),
        ("", b""),
        (r"\\n", b"\\n"),
        (r"\x414", b"A4"),
        ("\n", b"\n"),
        (os.fsdecode(b"\xff"), b"\xff"),
    ],
)
def test_escapes_stand_for_their_bytes(text, data):
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", "a\\", r"\q", r"\x", r"\x4", r"\xgg", "\\\n"])
def test_what_is_no_escape_is_refused_with_those_that_are(text):
    with pytest.raises(EscapeError, match="xHH"):
        unescape(text)
