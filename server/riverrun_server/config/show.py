"""Shows settings with the origin of each value, for `print-config`, and what was set, for the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from riverrun_server.config.load import Loaded
from riverrun_server.config.setting import Setting, settings_of, value_at
from riverrun_server.config.settings import Settings


class Row(NamedTuple):
    """One setting as it stands."""

    key: str
    value: object
    shown: str
    origin: str


def rows(loaded: Loaded) -> Iterator[Row]:
    """Yield every setting, listeners first; a secret's value is never among them."""
    settings = loaded.settings
    for index, listener in enumerate(settings.listeners):
        parts = {
            "name": listener.name,
            "bind": str(listener.bind),
            "advertised": str(listener.advertised),
            "protocol": listener.protocol.value,
        }
        for name, part in parts.items():
            key = f"listeners.{index}.{name}"
            yield Row(key, part, part, loaded.origin(key))
    # What follows from the listeners unless it is said: show what it came out as.
    derived: dict[str, object] = {
        "http.listen": settings.http_address,
        "peer.listen": settings.peer_address,
        "peer.advertise": settings.peer_advertised,
        "topic_defaults.replication_factor": settings.replication_factor,
    }
    for one in settings_of(Settings):
        value = derived.get(one.key, value_at(settings, one.key))
        yield _row(one, value, loaded.origin(one.key))


def as_table(loaded: Loaded) -> str:
    """Return the settings as aligned columns."""
    lines = [("setting", "value", "from")]
    lines += [(row.key, row.shown, row.origin) for row in rows(loaded)]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(
        f"{key:<{widths[0]}}  {shown:<{widths[1]}}  {origin}" for key, shown, origin in lines
    )


def as_json(loaded: Loaded) -> str:
    """Return the settings as a JSON array of objects with setting, value and origin."""
    return json.dumps(
        [{"setting": row.key, "value": row.value, "origin": row.origin} for row in rows(loaded)],
        indent=2,
    )


def changed(settings: Settings) -> dict[str, str]:
    """Return the settings that are not what they are by default, as they are shown."""
    before, now = (
        {row.key: row.shown for row in rows(Loaded(each, {}))} for each in (Settings(), settings)
    )
    return {key: shown for key, shown in now.items() if before.get(key) != shown}


def _row(one: Setting, value: object, origin: str) -> Row:
    shown = one.shown(value)
    plain = value if isinstance(value, bool | int | float) and not one.secret else shown
    return Row(one.key, plain, shown, origin)
