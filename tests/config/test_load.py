"""Settings come from a file, the environment and flags; what is wrong is said in full."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riverrun_server.config.load import ConfigError, all_settings, load
from riverrun_server.config.settings import Settings
from riverrun_server.core.cluster.topic_config import TopicConfig, resolve
from riverrun_server.core.limits import Limits
from riverrun_server.rpc.listener import Address


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "broker.toml"
        path.write_text(text)
        return path

    return write


def problems(**sources) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**sources)
    return caught.value.problems


def test_nothing_said_gives_the_defaults():
    loaded = load()
    assert loaded.settings == Settings()
    assert loaded.origin("broker_id") == "default"
    assert loaded.settings.http_address == Address("127.0.0.1", 7173)
    assert loaded.settings.peer_address == Address("127.0.0.1", 7172)


def test_a_flag_outranks_the_environment_and_that_the_file(file):
    path = file('broker_id = 2\nrack = "file"\nhost = "file"\n[storage]\nslots = 7\n')
    loaded = load(
        path,
        {"RIVERRUN_RACK": "env", "RIVERRUN_HOST": "env", "UNRELATED": "x"},
        {"host": "flag", "limits.max_calls": "9"},
    )
    settings = loaded.settings
    assert (settings.broker_id, settings.rack, settings.host) == (2, "env", "flag")
    assert (settings.storage.slots, settings.limits.max_calls) == (7, 9)
    assert loaded.origin("broker_id") == f"file {path}:1"
    assert loaded.origin("storage.slots") == f"file {path}:5"
    assert loaded.origin("rack") == "environment RIVERRUN_RACK"
    assert loaded.origin("host") == "flag --host"
    assert loaded.origin("limits.max_calls") == "flag --set limits.max_calls"
    assert loaded.origin("data_dir") == "default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brokerid = 1", "there is no setting brokerid; did you mean broker_id?"),
        ("slots = 1", "there is no setting slots; did you mean storage.slots?"),
        ("[storage]\nslot = 1", "there is no setting storage.slot; did you mean storage.slots?"),
        ("[zzz]\nqqq = 1", "there is no table [zzz]; there are etcd, fetch,"),
        ("[loging]\nlevel = 'info'", "there is no table [loging]; did you mean [log]?"),
        ("storage = 1", "storage is a table: write [storage] above its keys"),
        ("broker_id = 0", "broker_id: expected a whole number from 1 to 2147483647, got 0"),
        ("broker_id = true", "got True"),
        ("broker_id = 1.5", "got 1.5"),
        ('[log]\nlevel = "loud"', "expected debug or info or warning or error, got 'loud'"),
        ("broker_id =", "not TOML"),
        ("listeners = 3", "listeners is a list of tables"),
        ("listeners = [3]", "each of [[listeners]] is a table"),
        ("[[listeners]]\nbnd = 'h:1'", "a listener has no bnd; did you mean bind?"),
        ("[[listeners]]\nname = 'a'", "a listener has no bind = HOST:PORT"),
        ("[[listeners]]\nbind = 'h:99999'", "bind of a listener: expected HOST:PORT"),
        ("[[listeners]]\nbind = '127.0.0.1:1'\nprotocol = 'tls'", "expected plaintext, got 'tls'"),
        ("listen = '127.0.0.1:1'\n[[listeners]]\nbind='127.0.0.1:2'", "say the same thing twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(file, text, said):
    path = file(text)
    found = problems(file=path)
    assert said in found[0]
    assert str(path) in found[0]


def test_every_problem_is_told_at_once(file):
    found = problems(
        file=file("nonsense = 1\nbroker_id = -1"),
        environ={"RIVERRUN_NONSENSE": "1"},
        flags={"nonsense": "1", "drain_timeout_s": "soon"},
    )
    assert len(found) == 5


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    [found] = problems(file=tmp_path / "none.toml")
    assert "cannot be read: No such file" in found


def test_an_unknown_variable_is_a_problem_with_a_suggestion():
    [found] = problems(environ={"RIVERRUN_STORAGE_SLOT": "1"})
    assert found == (
        "environment: there is no setting RIVERRUN_STORAGE_SLOT; "
        "did you mean RIVERRUN_STORAGE_SLOTS?"
    )


def test_variables_of_service_links_and_of_the_client_are_not_settings():
    load(
        environ={
            "RIVERRUN_SERVICE_HOST": "10.0.0.1",
            "RIVERRUN_SERVICE_PORT": "7171",
            "RIVERRUN_SERVICE_PORT_CLIENTS": "7171",
            "RIVERRUN_PORT": "tcp://10.0.0.1:7171",
            "RIVERRUN_PORT_7171_TCP": "tcp://10.0.0.1:7171",
            "RIVERRUN_PORT_7171_TCP_ADDR": "10.0.0.1",
            "RIVERRUN_HEADLESS_SERVICE_HOST": "10.0.0.1",
            "RIVERRUN_BOOTSTRAP": "h:1",
            "RIVERRUN_CONFIG": "broker.toml",
        }
    )


def test_no_setting_has_a_variable_of_another_one_or_of_a_service_link():
    variables = [each.variable for each in all_settings()]
    assert len(variables) == len(set(variables))
    with pytest.raises(ConfigError) as caught:
        load(environ=dict.fromkeys(variables, "\0"))
    # Each was read as a setting and refused; a service link would have been passed over.
    assert len(caught.value.problems) == len(variables)


def test_listen_is_shorthand_for_one_listener():
    [listener] = load(flags={"listen": "127.0.0.1:9000"}).settings.listeners
    assert (listener.name, listener.bind) == ("clients", Address("127.0.0.1", 9000))
    assert listener.advertised == listener.bind


def test_advertise_alone_keeps_the_default_bind():
    [listener] = load(environ={"RIVERRUN_ADVERTISE": "broker.example:80"}).settings.listeners
    assert listener.bind == Address("127.0.0.1", 7171)
    assert listener.advertised == Address("broker.example", 80)


def test_listen_on_the_command_line_replaces_the_tables_of_the_file(file):
    path = file(
        "[[listeners]]\nname='a'\nbind='127.0.0.1:1'\n[[listeners]]\nname='b'\nbind='[::1]:2'"
    )
    loaded = load(path)
    assert [listener.name for listener in loaded.settings.listeners] == ["a", "b"]
    assert loaded.settings.http_address == Address("127.0.0.1", 3)
    [listener] = load(path, flags={"listen": "127.0.0.1:5"}).settings.listeners
    assert listener.bind.port == 5


def test_advertise_alone_cannot_choose_among_the_tables_of_a_file(file):
    path = file("[[listeners]]\nbind='127.0.0.1:1'")
    [found] = problems(file=path, flags={"advertise": "h:1"})
    assert found.startswith("flag --advertise: advertise stands beside [[listeners]]")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"listen": "10.0.0.1:7171"}, "allow it with --insecure"),
        ({"listen": "example.com:7171"}, "allow it with --insecure"),
        ({"listen": "0.0.0.0:7171", "insecure": "true"}, "clients cannot connect to 0.0.0.0:7171"),
        ({"listen": "[::]:7171", "insecure": "true"}, "clients cannot connect to [::]:7171"),
        ({"http.listen": "127.0.0.1:7171"}, "both want 127.0.0.1:7171"),
        ({"listen": "127.0.0.1:65534"}, "http.listen: 127.0.0.1:65536 lies beyond port 65535"),
        ({"storage.disk_low_water_bytes": "2GiB"}, "which is 1073741824"),
        ({"produce.default_timeout_ms": "1h"}, "must not be above produce.max_timeout_ms"),
        ({"limits.max_batch_bytes": "512KiB"}, "must not be above limits.max_batch_bytes"),
        (
            {"limits.max_in_flight_bytes_per_connection": "1MiB"},
            "limits.max_batch_bytes is 3145728",
        ),
        ({"limits.max_in_flight_bytes": "31MiB"}, "per_connection is 67108864, but must not"),
        ({"limits.max_streams_per_principal": "255"}, "max_streams_per_connection is 256"),
        ({"topic_defaults.partitions": "1001"}, "above limits.max_partitions_per_topic"),
        ({"limits.max_partitions": "999"}, "must not be above limits.max_partitions, which is"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(flags, said):
    [found] = problems(flags=flags)
    assert said in found


def test_listeners_must_not_share_a_name_or_a_port(file):
    path = file("[[listeners]]\nbind='127.0.0.1:1'\n[[listeners]]\nbind='127.0.0.1:1'")
    found = problems(file=path)
    assert any("names several listeners" in each for each in found)
    assert any("both want 127.0.0.1:1" in each for each in found)


@pytest.mark.parametrize("bind", ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1"])
def test_plaintext_on_loopback_needs_no_permission(bind):
    load(flags={"listen": bind})


def test_plaintext_elsewhere_is_allowed_by_name():
    flags = {"listen": "0.0.0.0:7171", "advertise": "broker:7171", "insecure": "true"}
    assert load(flags=flags).settings.insecure


def test_reflection_is_on_by_default_only_on_loopback():
    flags = {"listen": "0.0.0.0:7171", "advertise": "broker:7171", "insecure": "true"}
    settings = load(flags=flags).settings
    assert not settings.reflects(settings.listeners[0])
    assert Settings().reflects(Settings().listeners[0])
    settings = load(flags=flags | {"grpc.reflection": "on"}).settings
    assert settings.reflects(settings.listeners[0])
    settings = load(flags={"grpc.reflection": "off"}).settings
    assert not settings.reflects(settings.listeners[0])


def test_port_zero_keeps_the_other_default_ports_free_too():
    settings = load(flags={"listen": "127.0.0.1:0"}).settings
    assert settings.http_address == Address("127.0.0.1", 0)
    assert settings.listeners[0].bound(4711).advertised == Address("127.0.0.1", 4711)


def test_the_defaults_are_those_of_the_machines():
    assert Settings().core_limits() == Limits()
    assert resolve({}, Settings().topic_configs(), 1) == TopicConfig()


def test_limits_and_topic_defaults_that_were_set_reach_the_machines():
    settings = load(
        flags={
            "limits.max_batch_bytes": "2MiB",
            "limits.max_partitions_per_call": "7",
            "limits.max_in_flight_bytes_per_connection": "5MiB",
            "limits.timestamp_ahead_max_ms": "1s",
            "limits.max_partitions_per_topic": "8",
            "limits.max_partitions": "9",
            "produce.default_timeout_ms": "1",
            "produce.max_timeout_ms": "2",
            "fetch.max_wait_ms": "3",
            "groups.min_session_timeout_ms": "2s",
            "groups.default_session_timeout_ms": "3s",
            "groups.max_session_timeout_ms": "4s",
            "groups.default_revocation_timeout_ms": "5s",
            "topic_defaults.retention_ms": "1h",
            "topic_defaults.retention_bytes": "1GiB",
            "topic_defaults.max_batch_bytes": "2MiB",
        }
    ).settings
    limits = settings.core_limits()
    untouched = {"max_batch_records", "max_request_bytes", "max_frame_bytes"}
    untouched |= {"max_unacknowledged_batches", "max_metadata_watchers"}
    untouched |= {"max_waiting_topic_changes", "topic_change_timeout_ms"}
    for field in dataclasses.fields(Limits):
        same = getattr(limits, field.name) == getattr(Limits(), field.name)
        assert same is (field.name in untouched), field.name
    config = resolve({}, settings.topic_configs(), 1)
    assert config.retention_ms == 3_600_000
    assert config.retention_bytes == 1 << 30
    assert config.max_batch_bytes == 2 << 20


def test_each_listener_has_at_least_one_connection(file):
    path = file(
        "".join(f"[[listeners]]\nname='l{each}'\nbind='127.0.0.1:{each}00'\n" for each in (1, 2, 3))
        + "[limits]\nmax_connections = 2\n"
    )
    [found] = problems(file=path)
    assert "limits.max_connections is 2 and there are 3 listeners" in found
