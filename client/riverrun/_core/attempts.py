"""What the attempts of one call have left open: an error of the last one says it of all of them."""

from __future__ import annotations

import copy

from riverrun.errors import RiverrunError


class Attempts:
    """The attempts of one call that is made again where it fails.

    Args:
        changes: the call can take effect; where it only reads, nothing is ever left open.

    Attributes:
        doubtful: an attempt that failed may have taken effect, or may still.
    """

    def __init__(self, *, changes: bool = True) -> None:
        self._changes = changes
        self.doubtful = False

    def failed(self, error: RiverrunError) -> RiverrunError:
        """Take the error of another attempt; return it as it holds for the whole call."""
        told = self.told(error)
        self.doubtful |= not told.outcome_known
        return told

    def told(self, error: RiverrunError) -> RiverrunError:
        """Return what an answer says of a part of the call, as it holds for the whole call."""
        if not self._changes:
            return error if error.outcome_known else _copied(error, known=True)
        if not self.doubtful or not error.outcome_known:
            return error
        told = _copied(error, known=False)
        told.message = f"{error.message.rstrip('. ')}; {EARLIER}"
        return told


# Only what does no harm is made again.
EARLIER = (
    "an earlier attempt of this call was not answered, and may have taken effect; making the call "
    "again does no harm"
)


def _copied(error: RiverrunError, *, known: bool) -> RiverrunError:
    told = copy.copy(error)
    told.outcome_known = known
    return told
