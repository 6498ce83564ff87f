"""Metrics pass what `promtool check metrics` asks for, and the pages tell of those there are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from riverrun_server.observe.advice import ADVICE
from riverrun_server.observe.metrics import Metrics
from riverrun_server.observe.replication import ReplicationFigures
from riverrun_server.observe.store import StoreFigures
from riverrun_server.observe.topics import TopicFigures

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "metric_docs.py"
# What promlint calls abbreviated and non-base units, and types in names.
ABBREVIATED = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
NOT_BASE = {"milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks"}
NOT_BASE |= {"kilobytes", "megabytes", "gigabytes", "kibibytes", "mebibytes", "bits", "percent"}
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


def complaints(text: str) -> list[str]:
    """Return what promlint would complain of in a scrape."""
    found = []
    seen = set()
    for family in text_string_to_metric_families(text):
        name, words = family.name, set(family.name.split("_"))
        exposed = {sample.name for sample in family.samples} or {name}
        checks = {
            "has no help": not family.documentation.strip(),
            "is there twice": name in seen,
            "has an unknown type": family.type not in {"counter", "gauge", "histogram"},
            "is not in snake case": not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name),
            "abbreviates its unit": bool(words & ABBREVIATED),
            "has no base unit": bool(words & NOT_BASE),
            "names its type": bool(words & TYPES),
            "is a counter without _total": family.type == "counter"
            and any(not each.endswith("_total") for each in exposed - {name}),
            "ends in _total and is no counter": family.type != "counter"
            and any(each.endswith("_total") for each in exposed),
            "ends as only histograms may": family.type != "histogram"
            and any(re.search("_(count|sum|bucket)$", each) for each in exposed),
            "uses a label of histograms": family.type != "histogram"
            and any({"le", "quantile"} & set(each.labels) for each in family.samples),
            "has a label that is not in snake case": any(
                not re.fullmatch("[a-z][a-z_]*", label)
                for each in family.samples
                for label in each.labels
            ),
        }
        seen.add(name)
        found += [f"{name} {what}" for what, wrong in checks.items() if wrong]
    return found


def fed() -> Metrics:
    """Metrics of which each has at least one series."""
    metrics = Metrics(process=False)
    for part in vars(metrics).values():
        labels = getattr(part, "_labelnames", ())
        if labels and part is not metrics.info:
            part.labels(*["x"] * len(labels))
    metrics.info.info({"version": "1", "broker_id": "1"})
    metrics.topics.publish({"t": TopicFigures(online=1)})
    metrics.store.publish(StoreFigures(*[0] * 15))
    metrics.replication.publish(ReplicationFigures(*[0] * 13))
    return metrics


def test_promtool_would_not_complain():
    text = generate_latest(fed().registry).decode()
    assert text.count("# HELP ") > 40
    assert complaints(text) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# HELP a_total\n# TYPE a_total counter\na_total 1\n", "a has no help"),
        ("# HELP a_ms x.\n# TYPE a_ms gauge\na_ms 1\n", "a_ms abbreviates its unit"),
        ("# HELP a_minutes x.\n# TYPE a_minutes gauge\na_minutes 1\n", "a_minutes has no base"),
        ("# HELP a_total x.\n# TYPE a_total gauge\na_total 1\n", "a_total ends in _total and"),
        ("# HELP a_count x.\n# TYPE a_count gauge\na_count 1\n", "a_count ends as only"),
        ("# HELP aB x.\n# TYPE aB gauge\naB 1\n", "aB is not in snake case"),
        ('# HELP a x.\n# TYPE a gauge\na{bC="1"} 1\n', "a has a label that is not in snake case"),
        ("# HELP a_gauge x.\n# TYPE a_gauge gauge\na_gauge 1\n", "a_gauge names its type"),
        ("# HELP a x.\n# TYPE a untyped\na 1\n", "a has an unknown type"),
    ],
)
def test_what_promtool_complains_of_is_complained_of(text, complaint):
    assert any(each.startswith(complaint) for each in complaints(text)), complaints(text)


def test_every_metric_says_what_it_is_in_a_sentence():
    for family in fed().registry.collect():
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name


def test_the_page_of_metrics_is_fresh(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["metric_docs.py", "--check"])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert "metrics" in capsys.readouterr().out


def test_a_stale_page_of_metrics_is_noticed(monkeypatch):
    names = runpy.run_path(str(TOOL))
    monkeypatch.setattr("sys.argv", ["metric_docs.py", "--check"])
    names["main"].__globals__["HEAD"] = "something else"
    with pytest.raises(SystemExit, match="is stale, run `make metric-docs`"):
        names["main"]()


def test_the_page_has_every_metric_with_its_labels():
    names = runpy.run_path(str(TOOL))
    described = {each.name: each for each in names["described"]()}
    for family in fed().registry.collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(described[name].labels) == labels, name


def metrics_there_are() -> set[str]:
    return set(
        re.findall(r"`((?:riverrun|process|python)_\w+)`", (ROOT / "docs/metrics.md").read_text())
    )


def test_advice_is_about_metrics_that_there_are():
    headings = re.findall(
        r"^(?:### |\| )`(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    assert set(ADVICE) <= set(headings)
    named = set(re.findall(r"\b(?:riverrun|process)_\w+", " ".join(ADVICE.values())))
    assert named <= set(headings)


def test_the_page_about_operations_names_only_what_there_is():
    text = (ROOT / "docs/operations.md").read_text()
    named = set(re.findall(r"\b(?:riverrun|process)_[a-z_]+", text))
    bare = {re.sub(r"_(bucket|count|sum)$", "", each) for each in named}
    assert bare
    assert bare <= metrics_there_are()
    settings = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text))
    configuration = (ROOT / "docs/configuration.md").read_text()
    for key in settings:
        assert f"### `{key}`" in configuration, key
    for link in re.findall(r"\]\(([\w.-]+\.md)", text):
        assert (ROOT / "docs" / link).exists()
