"""How names from requests are shown in errors, and which known name was probably meant."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Sequence

# Longer text helps nobody in an error, and an attacker who fills a log with it.
_SHOWN = 80
# Comparing with everything would let a flood of misspelt names take the loop: about 20 us each.
_COMPARED = 48


def quoted(text: str) -> str:
    """Return text in quotes, shortened, every control character escaped."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the one of the sorted `known` names that was probably meant.

    Looks at a bounded number: all where there are few, else the neighbours in order.
    """
    if len(name) > _SHOWN * 4:
        return None
    if len(known) > _COMPARED:
        at = bisect_left(known, name)
        begin = max(0, at - _COMPARED // 2)
        known = known[begin : begin + _COMPARED]
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return "; did you mean ...?", or nothing where no known name is near."""
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {quoted(found)}?"
