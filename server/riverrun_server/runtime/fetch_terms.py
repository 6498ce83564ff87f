"""When a fetch is answered, how large the answer is, and whose turn it is to be asked first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_TURN_BITS: Final = 32
# The golden ratio, as a share of 2^32.
_GOLDEN: Final = 0x9E3779B9


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTerms:
    """When a fetch is answered, and how large the answer is.

    Attributes:
        min_bytes: answer when there is so much; at least 1.
        max_bytes: aim at no more.
        max_wait_s: answer after so long in any case.
        turn: the number of the call; it decides which partition is asked first.
    """

    min_bytes: int
    max_bytes: int
    max_wait_s: float
    turn: int = 0


def first_of_turn(turn: int, partitions: int) -> int:
    """Return which of so many partitions is asked first in a broker's call number `turn`.

    Another one in each call, spread evenly over all of them, and so in every second or tenth call.
    Were it simply the next one, two clients that ask by turns for an even number of partitions
    would each see one half of them first for ever.

        >>> [first_of_turn(turn, 10) for turn in range(6)]
        [0, 6, 2, 8, 4, 0]
    """
    return (turn * _GOLDEN % (1 << _TURN_BITS)) * partitions >> _TURN_BITS
