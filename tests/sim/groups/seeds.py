"""Seeds that found something once, each with what it was; they stay, and run with every test suite."""

from __future__ import annotations

FOUND: dict[int, str] = {
    1382: "a gateway that went on by itself, its coordinator being another one, got in front of the stream "
    "that the member had opened since",
    1476: "a partition that a member was to give up was taken from it after its revocation timeout, most of which "
    "had passed before that was committed and the member told",
}
