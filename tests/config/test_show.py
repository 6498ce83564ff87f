"""print-config tells value and origin, the page in docs is fresh, and secrets stay secret."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from riverrun_server.config.kinds import Text
from riverrun_server.config.load import load
from riverrun_server.config.setting import build, setting, settings_of, value_at
from riverrun_server.config.show import _row, as_json, as_table, changed

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_has_every_setting_with_value_and_origin():
    table = as_table(load(environ={"RIVERRUN_STORAGE_SLOTS": "8"}))
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert lines["storage.slots"] == ["8", "environment", "RIVERRUN_STORAGE_SLOTS"]
    assert lines["listeners.0.bind"] == ["127.0.0.1:7171", "default"]
    assert lines["http.listen"] == ["127.0.0.1:7173", "default"]
    assert lines["topic_defaults.retention_bytes"] == ["unlimited", "default"]


def test_what_was_set_is_told_without_the_rest_and_without_secrets():
    flags = {"listen": "127.0.0.1:9000", "limits.max_calls": "9", "storage.slots": "256"}
    assert changed(load(flags=flags).settings) == {
        "listeners.0.bind": "127.0.0.1:9000",
        "listeners.0.advertised": "127.0.0.1:9000",
        "http.listen": "127.0.0.1:9002",
        "peer.listen": "127.0.0.1:9001",
        "peer.advertise": "127.0.0.1:9001",
        "limits.max_calls": "9",
    }
    assert changed(load().settings) == {}


def test_json_keeps_numbers_and_truth_values():
    rows = {row["setting"]: row for row in json.loads(as_json(load(flags={"insecure": "true"})))}
    assert rows["insecure"] == {"setting": "insecure", "value": True, "origin": "flag --insecure"}
    assert rows["storage.slots"]["value"] == 256
    assert rows["listeners.0.protocol"]["value"] == "plaintext"


@dataclasses.dataclass(frozen=True)
class _Inner:
    token: str = setting(Text(".*", "text"), "", doc="A token.", secret=True)


@dataclasses.dataclass(frozen=True)
class _Outer:
    inner: _Inner = dataclasses.field(default_factory=_Inner)


def test_a_secret_is_never_shown():
    settings = build(_Outer, {"inner.token": "hunter2"})
    [one] = settings_of(_Outer)
    assert value_at(settings, one.key) == "hunter2"
    row = _row(one, "hunter2", "file x")
    assert "hunter2" not in str(row)
    assert row.shown == "(set)"
    assert one.shown("") == "(not set)"


def test_the_page_in_docs_is_fresh(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["config_docs.py", "--check"])
    runpy.run_path(str(ROOT / "tools" / "config_docs.py"), run_name="__main__")
    assert "settings" in capsys.readouterr().out


def test_a_stale_page_is_noticed(monkeypatch):
    names = runpy.run_path(str(ROOT / "tools" / "config_docs.py"))
    monkeypatch.setattr("sys.argv", ["config_docs.py", "--check"])
    names["main"].__globals__["HEAD"] = "something else"
    with pytest.raises(SystemExit, match="is stale, run `make config-docs`"):
        names["main"]()
