"""etcd behind a password, and behind TLS with and without certificates of clients."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from riverrun_server.metadata.etcd.options import EtcdOptions, TlsFiles, User
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.ports.metadata import AccessDenied, MetadataUnavailable, Put, Transaction
from tests.metadata.etcd_process import EtcdProcess
from tests.metadata.fakes import SeededDice
from tests.polyglot import toolchain

pytestmark = toolchain.BUILDS

PREFIX = "/riverrun/c/"


def store_of(etcd, *, prefix=PREFIX, timeout_s=2.0, **how):
    return EtcdStore(EtcdOptions((etcd.address,), prefix, timeout_s=timeout_s, **how), SeededDice())


async def put(store, key="k"):
    return (await store.transact(Transaction((), (Put(key, b"v"),)))).revision


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """An etcd that knows the user riverrun, whose password is secret."""
    etcd = EtcdProcess(tmp_path_factory.mktemp("locked"), "--bcrypt-cost=4")
    try:
        etcd.start()
        etcd.enable_auth("riverrun", "secret", PREFIX)
        yield etcd
    finally:
        etcd.stop()


@pytest.fixture
def user(tmp_path):
    file = tmp_path / "password"
    file.write_text("secret\n")
    return User("riverrun", file)


async def test_a_user_with_a_password_reads_writes_and_watches(locked, user):
    async with store_of(locked, user=user) as store:
        watch = store.watch("", await put(store))
        assert (await watch.next()).events[0].key == "k"
        lease = await store.grant(5)
        assert await store.keep_alive(lease.lease_id) == lease
        await store.revoke(lease.lease_id)


async def test_nobody_and_a_wrong_password_are_denied_with_what_to_do(locked, user):
    async with store_of(locked) as store:
        with pytest.raises(AccessDenied, match=r"user name is empty.*etcd\.user") as denied:
            await put(store)
        assert denied.value.definite
    user.password_file.write_text("guess")
    async with store_of(locked, user=user) as store:
        with pytest.raises(AccessDenied, match=r"cannot log in.*etcd\.password_file"):
            await store.get("k")
    user.password_file.unlink()
    async with store_of(locked, user=user) as store:
        with pytest.raises(AccessDenied, match="No such file"):
            await store.get("k")


async def test_keys_of_another_cluster_are_denied(locked, user):
    async with store_of(locked, prefix="/riverrun/other/", user=user) as store:
        for call in (store.get("k"), store.scan(""), put(store)):
            with pytest.raises(AccessDenied, match=r"permission denied.*'/riverrun/other/'"):
                await call


async def test_a_log_in_that_has_ended_is_repeated_with_the_password_of_now(locked, user):
    async with store_of(locked, user=user) as store:
        before = await put(store)
        locked.change_password("riverrun", "changed")
        try:
            with pytest.raises(AccessDenied, match="cannot log in"):
                await store.get("k")
            user.password_file.write_text("changed\n")
            results = await asyncio.gather(*(put(store) for _ in range(10)))
            assert sorted(results) == list(range(before + 1, before + 11))
        finally:
            locked.change_password("riverrun", "secret")


# --- TLS


def certificates(folder):
    """Make an authority, and a certificate of etcd's and one of a broker's that it has signed."""
    folder.mkdir()

    def openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("etcd", "broker"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem"),
        )
    return folder


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """An etcd that speaks TLS and asks for a certificate, and the folder with all of them."""
    if shutil.which("openssl") is None:
        toolchain.missing("certificates need the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    files = certificates(folder / "files")
    etcd = EtcdProcess(
        folder,
        *("--cert-file", str(files / "etcd.pem"), "--key-file", str(files / "etcd.key")),
        *("--client-cert-auth", "--trusted-ca-file", str(files / "ca.pem")),
        scheme="https",
    )
    try:
        etcd.start()
        yield etcd, files
    finally:
        etcd.stop()


async def test_both_sides_show_their_certificates(tls):
    etcd, files = tls
    own = TlsFiles(files / "ca.pem", files / "broker.pem", files / "broker.key")
    async with store_of(etcd, tls=own) as store:
        revision = await put(store)
        assert (await store.get("k")).mod_revision == revision


@pytest.mark.parametrize("how", ["plaintext", "no certificate", "another authority"])
async def test_a_broker_that_cannot_prove_itself_or_trust_etcd_gets_a_definite_no(
    tls, tmp_path, how
):
    etcd, files = tls
    other = certificates(tmp_path / "other") if how == "another authority" else files
    given = {
        "plaintext": None,
        "no certificate": TlsFiles(files / "ca.pem"),
        "another authority": TlsFiles(other / "ca.pem", files / "broker.pem", files / "broker.key"),
    }[how]
    async with store_of(etcd, tls=given, timeout_s=0.7) as store:
        with pytest.raises(MetadataUnavailable, match="no member of etcd answered") as no:
            await put(store)
        assert no.value.definite
