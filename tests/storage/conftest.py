"""Stores for the tests: in memory and on RocksDB, with batches that need no protobuf."""

from __future__ import annotations

import pytest

from riverrun_server.storage.memory import MemoryStore
from tests.storage import world


class MemoryWorld:
    """The twin in memory; its restart is a crash that loses nothing."""

    def __init__(self, _tmp_path) -> None:
        self.store = MemoryStore(world.parse, world.scan)

    def restart(self):
        self.store.close(clean=True)
        return self.store

    def close(self):
        pass


class RocksWorld:
    """A store on disk."""

    def __init__(self, tmp_path) -> None:
        self.folder = tmp_path / "data"
        self.store = world.open_small(self.folder)

    def restart(self):
        self.store.close(clean=True)
        self.store = world.open_small(self.folder)
        return self.store

    def close(self):
        self.store.close()


@pytest.fixture(params=[MemoryWorld, RocksWorld], ids=["memory", "rocks"])
def any_world(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def opened(data_dir):
    """Open stores that are closed in the end, however the test ends."""
    stores = []

    def open_one(folder=data_dir, **how):
        stores.append(world.open_small(folder, **how))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close(clean=False)
