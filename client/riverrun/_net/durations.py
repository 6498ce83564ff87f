"""Turn lengths of time into what the API says them with."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration


def duration(seconds: float) -> Duration:
    """Return a length of time in seconds, to the ms."""
    found = Duration()
    found.FromMilliseconds(round(seconds * 1000))
    return found
