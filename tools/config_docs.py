"""Write docs/configuration.md from the settings in the code, or check that it is fresh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from riverrun_server.config.load import all_settings
from riverrun_server.config.setting import Setting
from riverrun_server.core.cluster.topic_config import KEYS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEAD = """\
# Configuration

<!-- Made from the code by `make config-docs`; change the settings there. -->

A broker takes its settings from, each outranking the one before it:

1. a TOML file: `riverrun-server run --config broker.toml`, or `RIVERRUN_CONFIG=broker.toml`;
2. the environment: the variable of each setting stands below;
3. the command line: the flag where one stands below, and `--set KEY=VALUE` for every setting, which outranks it.

`riverrun-server print-config` takes the same options and shows each value and where it came from
(`--output json` for programs): the line of the file, the variable or the flag. An unknown name is an
error with a suggestion, and no broker starts with one.

A size is a number of bytes or text with a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`, or `kB`, `MB`, `GB`,
`TB`). A time is a number in the unit that the name ends in, or text with a unit of its own (`ms`,
`s`, `m`, `h`, `d`).

```toml
data_dir = "/var/lib/riverrun"
broker_id = 1

[[listeners]]
name = "clients"
bind = "127.0.0.1:7171"

[topic_defaults]
retention_ms = "3d"

[limits]
max_in_flight_bytes = "256MiB"
```

## Listeners

Each `[[listeners]]` table opens one port for clients. The first decides the default of the other
ports: its port + 1 for peers, + 2 for HTTP.

| key | accepts | default |
|---|---|---|
| `name` | up to 32 lower-case letters, digits, `_` or `-` | `clients` |
| `bind` | `HOST:PORT`, port 0 lets the system choose | |
| `advertised` | `HOST:PORT` under which clients reach it | what `bind` says |
| `protocol` | `plaintext` | `plaintext` |

`listen` and `advertise` below say the same for a single listener.

What one topic does is not a setting of the broker: see [the last part](#configuration-of-a-topic).
"""

TOPIC_HEAD = """\

## Configuration of a topic

Set when a topic is made or later, and kept with the topic:

```
riverrun topic create logs --config retention.ms=3d --config max.batch.bytes=512KiB
riverrun topic alter logs --config retention.bytes=10GiB
```

`riverrun topic describe` shows what holds and whether it was set for the topic. What is not set
follows the broker's `[topic_defaults]` where they have it. An unknown key is refused.

| key | default | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    tables: dict[str, list[Setting]] = {}
    for one in all_settings():
        table, dot, _ = one.key.rpartition(".")
        tables.setdefault(table if dot else "", []).append(one)
    parts = [HEAD]
    for table, settings in tables.items():
        parts.append(f"\n## {f'`[{table}]`' if table else 'At the top of the file'}\n")
        parts.extend("\n".join(entry(one)) for one in settings)
    return "\n".join(parts) + topic_part()


def topic_part() -> str:
    """Return the part about topics."""
    rows = [
        f"| `{key.name}` | {f'`{key.default}`' if key.default else 'see there'} | {key.doc} |\n"
        for key in KEYS.values()
    ]
    return TOPIC_HEAD + "".join(rows)


def entry(one: Setting) -> Iterator[str]:
    """Yield the lines about one setting."""
    ways = [f"`{one.variable}`", *([f"`{one.flag}`"] if one.has_flag else [])]
    # The machine that writes this page must not leave its own name in it.
    default = "this machine's name" if one.key == "host" else one.shown(one.default)
    yield f"### `{one.key}`\n"
    yield f"{one.doc}\n"
    yield f"- accepts {one.kind.accepts}"
    yield f"- default: {default or '(empty)'}"
    yield f"- also {' and '.join(ways)}"
    yield ""


def main() -> None:
    """Write the page, or with --check fail when it is stale."""
    fresh = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif not PAGE.exists() or PAGE.read_text() != fresh:
        sys.exit(f"{PAGE.name} is stale, run `make config-docs`")
    print(f"{PAGE.name}: {len(all_settings())} settings, {len(KEYS)} of topics")


if __name__ == "__main__":
    main()
