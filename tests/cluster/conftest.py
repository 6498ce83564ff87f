"""Clusters of processes for the tests of what they do together."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.cluster.processes import ClusterProcesses


@contextlib.contextmanager
def running(folder):
    """Run an etcd and three brokers; what they printed is shown where a test fails."""
    cluster = ClusterProcesses(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        sys.stdout.write(cluster.logs())


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    """A cluster for the tests of one module, which leave it running."""
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path):
    """A cluster of the test's own."""
    with running(tmp_path) as cluster:
        yield cluster
