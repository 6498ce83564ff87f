"""The store that the settings name is opened, and no other than the data directory began with."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from riverrun_server.config.load import load
from riverrun_server.metadata_opening import open_metadata
from riverrun_server.ports.metadata import Put, Transaction
from riverrun_server.runtime.supervisor import CannotStart
from tests.metadata.etcd_process import EtcdProcess
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice
from tests.polyglot import toolchain

PUT = Transaction((), (Put("cluster", b"{}"),))


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@contextlib.asynccontextmanager
async def opened(disk, metadata, **settings):
    flags = {"metadata": metadata} | {f"etcd.{name}": text for name, text in settings.items()}
    given = load(flags=flags).settings
    async with open_metadata(given, disk, disk.durable, ManualClock(), SeededDice()) as store:
        yield store


async def refused(disk, metadata, **settings):
    with pytest.raises(CannotStart) as refusal:
        async with opened(disk, metadata, **settings):
            pass
    return str(refusal.value)


async def test_an_etcd_that_is_not_there_is_waited_for_and_then_named():
    said = await refused(
        FakeDisk(), "etcd://127.0.0.1:1/c", start_timeout_s="500ms", timeout_s="200ms"
    )
    assert "metadata etcd://127.0.0.1:1/c: etcd did not answer within 0.5 s" in said
    assert "127.0.0.1:1: UNAVAILABLE" in said


async def test_files_that_cannot_be_read_are_named(tmp_path):
    said = await refused(FakeDisk(), "etcds://127.0.0.1:1/c", ca_file=str(tmp_path / "ca.pem"))
    assert said == f"etcd: {tmp_path}/ca.pem: No such file or directory"


async def test_topics_in_the_embedded_store_are_not_looked_for_in_etcd():
    disk = FakeDisk()
    async with opened(disk, "embedded") as store:
        await store.transact(PUT)
    said = await refused(disk, "etcd://127.0.0.1:1/c")
    assert "keeps its metadata itself (1 keys at revision 1)" in said
    async with opened(disk, "embedded") as store:
        assert await store.get("cluster") is not None


@toolchain.BUILDS
async def test_topics_in_etcd_are_looked_for_there_alone(etcd):
    disk = FakeDisk()
    async with opened(disk, f"etcd://{etcd.address}/opening") as store:
        await store.transact(PUT)
    for other in ("embedded", f"etcd://{etcd.address}/another"):
        said = await refused(disk, other)
        assert "are in etcd under '/riverrun/opening/'" in said
        assert "--metadata etcd://HOST:PORT/opening" in said
    async with opened(disk, f"etcd://{etcd.address}/opening") as store:
        assert await store.get("cluster") is not None


@toolchain.BUILDS
async def test_an_etcd_that_has_gone_back_is_refused_until_it_is_confirmed(tmp_path):
    etcd, disk, backup = EtcdProcess(tmp_path), FakeDisk(), tmp_path / "backup"
    try:
        etcd.start()
        address = f"etcd://{etcd.address}/c"
        etcd.kill9()
        shutil.copytree(tmp_path / "etcd", backup)
        etcd.start()
        async with opened(disk, address) as store:
            newest = (await store.transact(PUT)).revision
        etcd.kill9()
        shutil.rmtree(tmp_path / "etcd")
        backup.rename(tmp_path / "etcd")
        etcd.start()
        said = await refused(disk, address)
        assert f"was at {newest} before" in said
        assert "--set etcd.confirm_store=true" in said
        async with opened(disk, address, confirm_store="true") as store:
            assert await store.get("cluster") is None
        async with opened(disk, address) as store:
            assert await store.get("cluster") is None
    finally:
        etcd.stop()


@toolchain.BUILDS
async def test_a_password_is_read_from_its_file_and_never_told(etcd, tmp_path):
    file = written(tmp_path / "password", "hush-hush\n")
    said = await refused(
        *(FakeDisk(), f"etcd://{etcd.address}/c"), user="riverrun", password_file=file
    )
    assert "user 'riverrun' cannot log in" in said
    assert "authentication is not enabled" in said
    assert "hush" not in said
