"""Where settings come from in detail: lines of files, files that cannot be read, text that is not fit to show."""

from __future__ import annotations

import dataclasses
import json

import pytest

from riverrun_server.config import load as load_module
from riverrun_server.config.kinds import Endpoint, Integer, Text
from riverrun_server.config.load import ConfigError, _Gathered, load
from riverrun_server.config.setting import setting, settings_of
from riverrun_server.config.show import as_json, as_table
from riverrun_server.config.toml_lines import lines_of

SECRET = "hunter2"


def problems(**sources) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**sources)
    return caught.value.problems


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "broker.toml"

    def write(content: str | bytes):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_lines_of_tables_lists_dotted_and_quoted_keys():
    text = (
        "# a comment = 1\n"
        "broker_id = 1\n"
        "storage.slots = 2\n"
        '"rack" = "x"\n'
        "\n"
        "[ log ] # here\n"
        "  level = 'info'\n"
        "[[listeners]]\n"
        "bind = 'h:1'\n"
        "[[listeners]]\n"
        "bind = 'h:2'\n"
    )
    assert lines_of(text) == {
        "broker_id": 2,
        "storage.slots": 3,
        "rack": 4,
        "log": 6,
        "log.level": 7,
        "listeners.0": 8,
        "listeners.0.bind": 9,
        "listeners.1": 10,
        "listeners.1.bind": 11,
    }


def test_a_line_that_is_not_sure_is_not_told(file):
    path = file('note = """\nbroker_id = 5\n"""\nbroker_id = 0\n')
    found = problems(file=path)
    assert f"file {path}: broker_id: expected a whole number" in found[1]


def test_each_problem_and_each_origin_has_its_line(file):
    path = file("broker_id = 7\n[storage]\nslots = 0\n[log]\nlevl = 'info'\n")
    assert [each.split(": ")[0] for each in problems(file=path)] == [
        f"file {path}:3",
        f"file {path}:5",
    ]
    path = file("[storage]\nslots = 9\n[[listeners]]\nbind = '127.0.0.1:5'\nname = 'a'\n")
    rows = {row["setting"]: row["origin"] for row in json.loads(as_json(load(path)))}
    assert rows["storage.slots"] == f"file {path}:2"
    assert rows["listeners.0.bind"] == f"file {path}:4"
    assert rows["listeners.0.name"] == f"file {path}:5"
    assert rows["listeners.0.advertised"] == "default"
    assert f"file {path}:5" in as_table(load(path))


def test_the_parts_of_a_listener_from_the_shorthand_have_origins_of_their_own(file):
    path = file("[[listeners]]\nname = 'a'\nbind = '127.0.0.1:5'\n")
    loaded = load(path, {"RIVERRUN_ADVERTISE": "b:9"}, {"listen": "127.0.0.1:6"})
    assert loaded.origin("listeners.0.bind") == "flag --listen"
    assert loaded.origin("listeners.0.advertised") == "environment RIVERRUN_ADVERTISE"
    assert loaded.origin("listeners.0.name") == "default"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"rack = '\xff'", "not UTF-8, which TOML must be: invalid start byte"),
        ("rack = 'é'".encode("latin-1"), "not UTF-8"),
        (b"broker_id = 1\nbroker_id = 2", "not TOML: Cannot overwrite a value"),
        (b"broker_id = " + b"9" * 5000, "not TOML: Exceeds the limit"),
        (b"rack = " + b"[" * 100_000, "not TOML: "),
        (b"broker_id = 0x" + b"f" * 20_000, "got a number of thousands of digits"),
        (b"rack = '" + b"x" * 10_000 + b"'", "(10002 characters)"),
        (b'"a\\nb\\u001b[2J" = 1', "there is no setting a\\nb\\x1b[2J"),
        (b"drain_timeout_s = nan", "got nan"),
        (b"drain_timeout_s = inf", "got inf"),
        (b"rack = 2026-01-01", "got datetime.date(2026, 1, 1)"),
        (b"[storage.slots]\na = 1", "storage.slots: expected a whole number"),
        (b"[[storage]]\nslots = 1", "storage is a table: write [storage] above its keys"),
        (b"[[listeners]]\nname = 'UPPER'\nbind = '127.0.0.1:1'", "up to 32 lower-case letters"),
    ],
)
def test_what_no_broker_can_use_is_one_short_line(file, content, said):
    path = file(content)
    [found] = problems(file=path)
    assert said in found
    assert str(path) in found
    assert found.isprintable()
    assert len(found) < len(str(path)) + 400


def test_a_directory_is_no_file(tmp_path):
    assert problems(file=tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_file_is_utf_8_whatever_the_locale_says(file):
    path = file("data_dir = '/daten/größe'")
    assert str(load(path).settings.data_dir) == "/daten/größe"


def test_a_variable_that_is_no_text_is_shown_escaped():
    [found] = problems(environ={"RIVERRUN_BROKER_ID": "\udcff\n"})
    assert found.endswith("got '\\udcff\\n'")
    [found] = problems(environ={"RIVERRUN_\udcff\x1b": "1"})
    assert "RIVERRUN_\\udcff\\x1b" in found


@dataclasses.dataclass(frozen=True)
class _Secrets:
    password: str = setting(Text("[a-z]*", "letters"), "", doc="A password.", secret=True)
    pin: int = setting(Integer(0, 9), 0, doc="A number.", secret=True)
    address: object = setting(Endpoint(), None, doc="Explains refusals.", secret=True)
    plain: str = setting(Text(".*", "text"), "", doc="No secret.")


@pytest.fixture
def secrets(monkeypatch):
    """Sources read as if every setting were one of these."""
    monkeypatch.setattr(load_module, "all_settings", lambda: list(settings_of(_Secrets)))
    return _Gathered()


@pytest.mark.parametrize("key", ["password", "pin", "address"])
def test_a_secret_that_is_refused_is_not_told(secrets, file, key):
    secrets.take_file(file(f"{key} = '{SECRET}'\n"))
    secrets.take_file(file(f"{key} = ['{SECRET}']\n"))
    secrets.take_environment({f"RIVERRUN_{key.upper()}": SECRET})
    secrets.take_flags({key: SECRET})
    assert len(secrets.problems) == 4
    assert SECRET not in str(secrets.problems)


def test_a_value_under_a_wrong_name_is_not_told_for_it_may_be_a_secret(secrets, file):
    secrets.take_file(file(f"pasword = '{SECRET}'\n[passwords]\na = '{SECRET}'\n"))
    secrets.take_environment({"RIVERRUN_PASWORD": SECRET})
    secrets.take_flags({"pasword": SECRET})
    assert len(secrets.problems) == 4
    assert SECRET not in str(secrets.problems)


def test_a_settings_object_prints_no_secret():
    shown = repr(_Secrets(password=SECRET, plain="seen"))
    assert "seen" in shown
    assert SECRET not in shown
