"""Write docs/metrics.md from the metrics in the code, or check that it is fresh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics_core import Metric

from riverrun_server.observe.advice import ADVICE
from riverrun_server.observe.metrics import MAX_TOPIC_LABELS, Metrics

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

HEAD = f"""\
# Metrics

<!-- Made from the code by `make metric-docs`; change the metrics there. -->

A broker serves them in Prometheus' text format on `/metrics` of its HTTP port
([`http.listen`](configuration.md)), from a thread of its own, so that one whose event loop is stuck can still
tell. What to watch first: [operations.md](operations.md).

No label takes its values from requests without a bound. `topic` is the name of a topic that exists; past
{MAX_TOPIC_LABELS} topics the last in the alphabet are summed up as `(other)`. `method` has only methods that there
are, `code` and `reason` only those of the API, `listener` only those of the configuration. Nothing is
labelled by client, connection, group or producer: the log has those.

Figures of topics, of the store and of replication are taken every 5 s.

"""


class Described(NamedTuple):
    """One metric as the page tells of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def described() -> Iterator[Described]:
    """Yield the metrics of a broker in the order in which the code has them."""
    for part in vars(Metrics(process=False)).values():
        if hasattr(part, "describe") and hasattr(part, "_labelnames"):
            yield from (_described(family, part._labelnames) for family in part.describe())  # noqa: SLF001
        elif hasattr(part, "publish"):
            for family in part.collect():
                yield _described(family, getattr(family, "_labelnames", ()))


def _described(family: Metric, labels: tuple[str, ...]) -> Described:
    ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
    if family.type == "info":
        return Described(
            family.name + ending, "gauge", ("version", "broker_id"), family.documentation
        )
    return Described(family.name + ending, family.type, tuple(labels), family.documentation)


def process_metrics() -> Iterator[Described]:
    """Yield those of the process, which the Prometheus client brings with it."""
    own = {each.name for each in described()}
    for family in Metrics().registry.collect():
        one = _described(family, tuple(sorted({k for s in family.samples for k in s.labels})))
        if one.name not in own:
            yield one


def page() -> str:
    """Return the whole page."""
    rows = "".join(entry(each) for each in described())
    process = "".join(
        f"| `{each.name}` | {each.kind} | {_labels(each)} | {each.help.rstrip('.')}. |\n"
        for each in sorted(process_metrics())
    )
    return (
        HEAD
        + rows
        + "## The process\n\nBrought by the Prometheus client, on Linux.\n\n"
        + "| name | type | labels | meaning |\n|---|---|---|---|\n"
        + process
    )


def entry(one: Described) -> str:
    """Return what the page says about one metric."""
    facts = one.kind + (f", by {_labels(one)}" if one.labels else "")
    advice = f"\n{ADVICE[one.name]}\n" if one.name in ADVICE else ""
    return f"### `{one.name}`\n\n{one.help} ({facts})\n{advice}\n"


def _labels(one: Described) -> str:
    return ", ".join(f"`{label}`" for label in one.labels)


def main() -> None:
    """Write the page, or with --check fail when it is stale."""
    fresh = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != fresh:
        sys.exit(f"{PAGE.name} is stale, run `make metric-docs`")
    print(f"{PAGE.name}: {sum(1 for _ in described())} metrics")


if __name__ == "__main__":
    main()
