"""How far `produce` has come when it ends before its input does, so that a script can go on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from riverrun.cli.counts import acknowledged


@dataclass(frozen=True, slots=True)
class Extent:
    """What of the input was sent, by the numbers of its lines, from 1.

    Attributes:
        acknowledged: how many records were.
        unsent_from: the first line of which, as of all behind it, nothing was sent.
        acknowledged_to: up to this line all that was given to the topic is acknowledged, and the next
            one is not; None where records went to several partitions, so that nobody can say.
        noun: what a line is called where something else than newlines ends them.
    """

    acknowledged: int
    unsent_from: int
    acknowledged_to: int | None
    noun: Literal["line", "record"] = "line"

    def told(self) -> str:
        """Tell it for people.

        >>> Extent(7, 12, 7).told()
        '7 records were acknowledged; line 8 is the first that was not; nothing from line 12 on was sent'
        """
        text = acknowledged(self.acknowledged)
        if self.acknowledged_to is not None and self.acknowledged_to + 1 < self.unsent_from:
            text += f"; {self.noun} {self.acknowledged_to + 1} is the first that was not"
        return f"{text}; nothing from {self.noun} {self.unsent_from} on was sent"

    def fields(self) -> dict[str, object]:
        """Tell it for programs."""
        fields: dict[str, object] = {"acknowledged_records": self.acknowledged}
        if self.acknowledged_to is not None:
            fields["acknowledged_to_line"] = self.acknowledged_to
        return {**fields, "unsent_from_line": self.unsent_from}
