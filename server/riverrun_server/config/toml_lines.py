"""On which line of a TOML file each key stands, so that errors and origins can point at it.

Python's TOML parser does not tell. This reads only what begins a line, which is nearly everything
that people write; where it cannot be sure it says nothing, for a wrong line is worse than none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

_NAME: Final = r"""[A-Za-z0-9_\-."'\ \t]+"""
_LIST: Final = re.compile(rf"\s*\[\[({_NAME})\]\]")
_TABLE: Final = re.compile(rf"\s*\[({_NAME})\]")
_KEY: Final = re.compile(rf"\s*({_NAME}?)=")


def lines_of(text: str) -> Mapping[str, int]:
    r"""Return the line, from 1, of each key, dots between tables; tables of a list are numbered.

    A key that seems to stand on two lines, as it may where text goes over several, is left out.

    >>> dict(lines_of("a = 1\n[b]\nc = 2\n[[d]]\ne = 3"))
    {'a': 1, 'b': 2, 'b.c': 3, 'd.0': 4, 'd.0.e': 5}
    """
    lines: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for number, key in _keys(text):
        seen[key] += 1
        lines[key] = number
    return {key: line for key, line in lines.items() if seen[key] == 1}


def _keys(text: str) -> Iterator[tuple[int, str]]:
    prefix = ""
    tables: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), 1):
        if found := _LIST.match(line):
            name = _plain(found[1])
            key = f"{name}.{tables[name]}"
            tables[name] += 1
            prefix = f"{key}."
        elif found := _TABLE.match(line):
            key = _plain(found[1])
            prefix = f"{key}."
        elif found := _KEY.match(line):
            key = prefix + _plain(found[1])
        else:
            continue
        yield number, key


def _plain(name: str) -> str:
    """Return a key without the quotes and spaces that TOML allows around its parts."""
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
