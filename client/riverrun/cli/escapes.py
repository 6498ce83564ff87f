r"""Escapes in options that hold bytes, such as `--delimiter '\0'` and `--format '%s\t%o'`."""

from __future__ import annotations

import os
import re

_SIMPLE = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\", "e": b"\x1b"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.|$)", re.DOTALL)
KNOWN = r"\n \t \r \0 \e \\ \xHH"


class EscapeError(ValueError):
    """An escape that does not exist; the message lists those that do."""


def unescape(text: str) -> bytes:
    r"""Turn `\n`, `\t`, `\r`, `\0`, `\e`, `\\` and `\xHH` into the bytes they stand for.

    Arguments that are not UTF-8 come back as the bytes that the shell passed.
    """
    out = bytearray()
    at = 0
    for found in _ESCAPE.finditer(text):
        out += os.fsencode(text[at : found.start()])
        at = found.end()
        name = found[1]
        if name in _SIMPLE:
            out += _SIMPLE[name]
        elif len(name) == 3:
            out.append(int(name[1:], 16))
        else:
            raise EscapeError(f"{found[0]!r} is not an escape; there are {KNOWN}")
    return bytes(out + os.fsencode(text[at:]))
