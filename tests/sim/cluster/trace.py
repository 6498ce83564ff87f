"""What happened in a simulated cluster, event by event: equal for equal seeds, short when it failed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

Line = tuple[float, object, str, tuple[object, ...]]


class Trace:
    """The events of one run in order, kept as they came and written out only when asked for."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, now_s: float, who: object, what: str, *details: object) -> None:
        """Note an event; details must print alike in every process (no addresses, no sets)."""
        self._lines.append((now_s, who, what, details))

    def digest(self) -> str:
        """Return a short name of everything that happened."""
        state = hashlib.blake2b(digest_size=8)
        for line in self._lines:
            state.update(_text(line).encode())
        return state.hexdigest()

    def kinds(self) -> dict[str, int]:
        """Return how often each kind of event happened."""
        counts: dict[str, int] = {}
        for _, _, what, _ in self._lines:
            counts[what] = counts.get(what, 0) + 1
        return counts

    def text(self, last: int = 200, about: Callable[[Line], bool] | None = None) -> str:
        """Return the last events, of those that are about something if that is given."""
        lines = [line for line in self._lines if about is None or about(line)]
        head = [f"({len(lines) - last} earlier events left out)"] if len(lines) > last else []
        return "\n".join([*head, *map(_text, lines[-last:])])


def _text(line: Line) -> str:
    now_s, who, what, details = line
    return f"{now_s:9.4f} {who!s:>10} {what} {' '.join(map(str, details))}".rstrip()


def minimise(items: Sequence[T], fails: Callable[[Sequence[T]], bool], tries: int = 200) -> list[T]:
    """Return a part of `items` for which it still fails and of which no piece can go (ddmin).

    Args:
        items: a plan that fails as a whole.
        fails: whether the run of a part of the plan fails in the same way.
        tries: so many runs at most; what is left then may not be minimal.
    """
    kept = list(items)
    pieces = 2
    while len(kept) > 1 and tries > 0:
        size = max(1, len(kept) // pieces)
        for begin in range(0, len(kept), size):
            without = kept[:begin] + kept[begin + size :]
            tries -= 1
            if without and fails(without):
                kept, pieces = without, max(pieces - 1, 2)
                break
            if tries <= 0:
                break
        else:
            if size == 1:
                break
            pieces = min(len(kept), pieces * 2)
    if len(kept) == 1 and tries > 0 and fails([]):
        return []
    return kept
