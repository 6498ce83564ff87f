"""What happens to files: the kinds of damage, aimed at a place in a file, or anywhere."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

PAGE = 4096


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit, of the eight of a byte."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def cut(path: Path, size: int) -> None:
    """Cut so many bytes off the end."""
    os.truncate(path, max(0, path.stat().st_size - size))


def zero(path: Path, at: int, size: int) -> None:
    """Let some bytes be zeroes; behind the end they are added."""
    garble(path, at, bytes(size))


def garble(path: Path, at: int, content: bytes) -> None:
    """Let some bytes be others; behind the end they are added."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def duplicate_tail(path: Path, size: int) -> None:
    """Add the last bytes once more."""
    with path.open("r+b") as file:
        content = file.read()
        file.write(content[-size:])


def swap_tail(path: Path, other: Path) -> None:
    """Let the second half be that of another file."""
    content, foreign = path.read_bytes(), other.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + foreign[half:])


def anywhere(data_dir: Path, older: Path, dice: random.Random) -> str:
    """Damage a file in one way, chosen by the dice; return what was done.

    Args:
        data_dir: whose files.
        older: the same directory at an earlier time, for copies that come back.
        dice: what chooses.
    """
    files = [path for path in sorted(data_dir.rglob("*")) if _counts(path)]
    # Files are few and unlike: one kind of file is as likely as another, however many it has.
    kind = dice.choice(sorted({_kind(path) for path in files}))
    path = dice.choice([path for path in files if _kind(path) == kind])
    size = path.stat().st_size
    at = dice.randrange(max(size, 1))
    bit, noise = dice.randrange(8), dice.randbytes(PAGE)
    ways: Sequence[tuple[str, Callable[[], object]]] = (
        (f"bit {bit} of byte {at} flipped", lambda: flip(path, min(at, size - 1), bit)),
        (f"cut at {at}", lambda: cut(path, size - at)),
        (f"a page of zeroes at {at}", lambda: zero(path, at - at % PAGE, min(PAGE, size))),
        ("50 KB of zeroes behind it", lambda: zero(path, size, 50_000)),
        (f"a page of noise at {at}", lambda: garble(path, at - at % PAGE, noise)),
        ("deleted", path.unlink),
        ("an older copy", lambda: _put_back(path, older / path.relative_to(data_dir))),
        (f"its last {size - at} bytes twice", lambda: duplicate_tail(path, size - at)),
        ("the second half of another file", lambda: swap_tail(path, dice.choice(files))),
    )
    told, do = dice.choice(ways if size else ways[3:6])
    do()
    return f"{path.relative_to(data_dir)}: {told}"


def _put_back(path: Path, older: Path) -> None:
    """Let a file be what it was earlier; one that was not there yet is gone."""
    if older.exists():
        shutil.copyfile(older, path)
    else:
        path.unlink()


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(("LOG", "LOCK", "lock", "IDENTITY"))


def _kind(path: Path) -> str:
    return path.suffix or path.name.split("-")[0]
