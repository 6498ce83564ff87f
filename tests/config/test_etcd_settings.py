"""Where the metadata is, who the broker is there, and what is refused for being open to everybody."""

from __future__ import annotations

import pytest

from riverrun_server.config.load import ConfigError, load
from riverrun_server.config.metadata_address import EtcdAddress
from riverrun_server.rpc.listener import Address


def problems(**flags):
    keys = {name.replace("__", "."): value for name, value in flags.items()}
    with pytest.raises(ConfigError) as caught:
        load(flags=keys)
    return caught.value.problems


def settings(**flags):
    return load(flags={name.replace("__", "."): value for name, value in flags.items()}).settings


def test_the_metadata_is_the_brokers_own_unless_an_etcd_is_named():
    assert load().settings.metadata is None
    assert settings(metadata="embedded").metadata is None
    text = "etcd://127.0.0.1:2379,[::1]:22379/orders"
    address = settings(metadata=text).metadata
    members = (Address("127.0.0.1", 2379), Address("::1", 22379))
    assert address == EtcdAddress(members, "orders", tls=False)
    assert str(address) == text
    assert address.prefix == "/riverrun/orders/"


@pytest.mark.parametrize(
    "text",
    [
        "etcd",
        "etcd://127.0.0.1:2379",
        "etcd://127.0.0.1:2379/",
        "etcd://127.0.0.1:2379/a/b",
        "etcd://127.0.0.1:2379/..",
        "etcd://127.0.0.1:2379/ö",
        "etcd://127.0.0.1/c",
        "etcd://127.0.0.1:0/c",
        "etcd:///c",
        "etcd://h:1,h:1/c",
        "http://h:1/c",
        "etcd://" + ",".join(f"h{number}:1" for number in range(17)) + "/c",
    ],
)
def test_an_address_that_names_no_etcd_is_refused_with_the_form(text):
    [said] = problems(metadata=text)
    assert "expected embedded, or etcd://HOST:PORT,HOST:PORT/CLUSTER" in said


def test_a_password_in_an_address_is_refused_and_not_told():
    [said] = problems(metadata="etcd://broker:s3cret@127.0.0.1:2379/orders")
    assert said.endswith(
        "got 'etcd://***@127.0.0.1:2379/orders' (whom to log in as goes into etcd.user and "
        "etcd.password_file)"
    )


@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        ({"metadata": "etcd://10.0.0.1:2379/c"}, "TLS"),
        ({"metadata": "etcd://127.0.0.1:2379,10.0.0.1:2379/c"}, "TLS"),
        ({"metadata": "etcd://etcd.example:2379/c"}, "TLS"),
        ({"metadata": "etcds://10.0.0.1:2379/c"}, "a log-in"),
        # A password in plaintext protects from nobody who can listen.
        (
            {
                "metadata": "etcd://10.0.0.1:2379/c",
                "etcd__user": "me",
                "etcd__password_file": "/run/secret",
            },
            "TLS",
        ),
    ],
)
def test_an_etcd_beyond_this_machine_without_tls_or_log_in_needs_insecure(given, lacks):
    [said] = problems(**given)
    assert f"reached without {lacks}" in said
    assert "--insecure" in said
    assert settings(**given, insecure="true").metadata is not None


@pytest.mark.parametrize(
    "given",
    [
        {"metadata": "etcd://127.0.0.1:2379,localhost:2379,[::1]:2379/c"},
        {"metadata": "etcds://etcd:2379/c", "etcd__user": "u", "etcd__password_file": "f"},
        {"metadata": "etcds://etcd:2379/c", "etcd__cert_file": "c", "etcd__key_file": "k"},
    ],
)
def test_an_etcd_on_this_machine_or_one_that_asks_who_comes_does_not(given):
    assert settings(**given).metadata is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"etcd__user": "u"}, "etcd.user is set, and etcd.password_file is not"),
        ({"etcd__password_file": "f"}, "etcd.password_file is set, and etcd.user is not"),
        ({"etcd__cert_file": "c"}, "etcd.cert_file is set, and etcd.key_file is not"),
        (
            {"metadata": "etcd://localhost:1/c", "etcd__ca_file": "ca.pem"},
            "etcd.ca_file is set, but etcd://localhost:1/c speaks no TLS",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(given, said):
    assert said in problems(**given)[0]
