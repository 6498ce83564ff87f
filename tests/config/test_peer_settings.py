"""Where brokers reach each other, and what a topic's replicas are by default."""

from __future__ import annotations

import pytest

from riverrun_server.config.load import ConfigError, load

ETCD = "etcd://127.0.0.1:2379/orders"


def problems(**flags):
    with pytest.raises(ConfigError) as error:
        load(flags={key.replace("__", "."): value for key, value in flags.items()})
    return list(error.value.problems)


def settings(**flags):
    return load(flags={key.replace("__", "."): value for key, value in flags.items()}).settings


def test_peers_are_told_to_connect_where_the_broker_listens_for_them():
    chosen = settings(metadata=ETCD, listen="127.0.0.1:9000")
    assert str(chosen.peer_advertised) == "127.0.0.1:9001"
    chosen = settings(metadata=ETCD, peer__listen="127.0.0.1:5", peer__advertise="here:6")
    assert (str(chosen.peer_address), str(chosen.peer_advertised)) == ("127.0.0.1:5", "here:6")


def test_an_open_port_for_peers_has_to_be_allowed_by_name():
    given = {"metadata": ETCD, "peer__listen": "10.0.0.1:7172"}
    (said,) = problems(**given)
    assert "peer.listen: plaintext on 10.0.0.1:7172" in said
    assert settings(**given, insecure="true").peer_address.host == "10.0.0.1"


def test_nobody_can_connect_to_every_address():
    given = {"metadata": ETCD, "peer__listen": "0.0.0.0:7172", "insecure": "true"}
    (said,) = problems(**given)
    assert "other brokers cannot connect to 0.0.0.0:7172" in said
    assert "--peer-advertise" in said


def test_peers_and_clients_have_ports_of_their_own():
    (said,) = problems(metadata=ETCD, listen="127.0.0.1:7171", peer__listen="127.0.0.1:7171")
    assert "peer.listen both want 127.0.0.1:7171" in said


def test_a_broker_that_is_alone_has_no_port_for_peers_to_complain_of():
    assert settings(peer__listen="0.0.0.0:7171", listen="127.0.0.1:7171").metadata is None


@pytest.mark.parametrize(
    ("given", "replicas"),
    [
        ({}, 1),
        ({"metadata": ETCD}, 3),
        ({"metadata": ETCD, "topic_defaults__replication_factor": "2"}, 2),
    ],
)
def test_topics_have_three_replicas_in_a_cluster_unless_somebody_says_otherwise(given, replicas):
    assert settings(**given).replication_factor == replicas
