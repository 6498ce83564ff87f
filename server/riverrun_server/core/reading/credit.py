"""Credit: how much a reader is ready to take, in records and in bytes.

A batch is sent while there is credit of both kinds and may overdraw it, so that a batch larger than
the credit still arrives (the rule of Reactive Streams' request(n), with two currencies).
"""

from __future__ import annotations

# Credit is an int64 on the wire; what a reader adds beyond that changes nothing it could notice.
CREDIT_MAX = (1 << 63) - 1
# No stream ever has as many records or bytes.
UNLIMITED = 1 << 64


class _Purse:
    """One kind of credit: what is left, and the most that was ever left."""

    __slots__ = ("left", "most")

    def __init__(self, left: int | None) -> None:
        assert left is None or left >= 0, left
        self.left = left
        self.most = left

    def grant(self, amount: int) -> None:
        assert amount >= 0, amount
        if self.left is None or self.most is None:
            return
        self.left = min(self.left + amount, CREDIT_MAX)
        self.most = max(self.most, self.left)


class Credit:
    """What one stream's reader is ready to take; None is no limit of that kind.

    Transitions:
        grant: adds to what is left; adding to no limit changes nothing, adding nothing neither
        charge: takes away, perhaps below zero
        refill: from now on the reader says no more, so what it was ready to take at the most, it is
            taken to be ready for again and again: `charge` no longer takes away
    """

    __slots__ = ("_bytes", "_records", "_refills")

    def __init__(self, records: int | None, size_bytes: int | None) -> None:
        self._records = _Purse(records)
        self._bytes = _Purse(size_bytes)
        self._refills = False

    @property
    def records(self) -> int | None:
        """Records left; None is no limit."""
        return self._records.left

    @property
    def size_bytes(self) -> int | None:
        """Bytes left; None is no limit."""
        return self._bytes.left

    @property
    def is_open(self) -> bool:
        """Whether something may be sent."""
        records, size_bytes = self.room
        return records > 0 and size_bytes > 0

    @property
    def room(self) -> tuple[int, int]:
        """Records and bytes left; UNLIMITED where there is no limit."""
        records, size_bytes = self._records.left, self._bytes.left
        return (
            UNLIMITED if records is None else records,
            UNLIMITED if size_bytes is None else size_bytes,
        )

    def grant(self, records: int | None, size_bytes: int | None) -> None:
        """Add credit; a kind that is not named stays what it is."""
        self._records.grant(records or 0)
        self._bytes.grant(size_bytes or 0)

    def charge(self, records: int, size_bytes: int) -> None:
        """Take away what was sent."""
        if self._refills:
            return
        if self._records.left is not None:
            self._records.left -= records
        if self._bytes.left is not None:
            self._bytes.left -= size_bytes

    def refill(self) -> None:
        """Refill as it is delivered, now that nobody can add any more."""
        self._refills = True
        for purse in (self._records, self._bytes):
            purse.left = purse.most
