"""What `doctor` thinks of the machine that a broker runs on: its disk, and its limit of open files."""

from __future__ import annotations

from riverrun import Storage
from riverrun.cli.finding import Finding
from riverrun.cli.tables import shown_bytes

LOW_SHARE = 0.10
"""With less of the disk free it is time to act."""
LOW_WATERS = 4
"""So is it with less than so many times what appends need, on a disk of any size."""
OPEN_FILES_MIN = 4096
"""Tables of the store take up to half of the limit, and each connection takes one."""


def check_disk(storage: Storage | None) -> list[Finding]:
    """Judge how much is free; nothing is told where the broker does not tell."""
    if storage is None or not storage.total_bytes:
        return []
    share = storage.free_bytes / storage.total_bytes
    found = (
        f"{shown_bytes(storage.free_bytes)} of {shown_bytes(storage.total_bytes)} free "
        f"({100 * share:.0f} %); appends need {shown_bytes(storage.low_water_bytes)}"
    )
    if not storage.accepts_appends:
        advice = (
            f"make room until {shown_bytes(storage.high_water_bytes)} are free: lower retention "
            "(`riverrun topic alter`), trim or delete topics, or enlarge the disk; reads go on"
        )
        return [Finding("disk", "failed", f"full, appends are refused: {found}", advice)]
    if share < LOW_SHARE or storage.free_bytes < LOW_WATERS * storage.low_water_bytes:
        advice = "lower retention, trim topics or enlarge the disk before appends are refused"
        return [Finding("disk", "warning", found, advice)]
    return [Finding("disk", "ok", found)]


def check_open_files(limit: int | None) -> list[Finding]:
    """Judge how many files and connections the broker may have open."""
    if limit is None:
        return []
    if limit < 0:
        return [Finding("open files", "ok", "no limit for the broker")]
    found = f"at most {limit:,} files and connections for the broker"
    if limit < OPEN_FILES_MIN:
        advice = "raise it where the broker starts (ulimit -n, LimitNOFILE), and restart the broker"
        return [Finding("open files", "warning", found, advice)]
    return [Finding("open files", "ok", found)]
