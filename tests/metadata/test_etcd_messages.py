"""What is said to etcd and what its errors mean, without an etcd."""

from __future__ import annotations

import grpc
import pytest

from riverrun_server.metadata.etcd.failures import Kind, understood
from riverrun_server.metadata.etcd.mark import MarkRow
from riverrun_server.metadata.etcd.messages import MAX_REQUEST_BYTES, Messages, end_of
from riverrun_server.metadata.etcd.standing import Mark, Standing
from riverrun_server.ports.log import CorruptData, StorageFull
from riverrun_server.ports.metadata import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    Compare,
    InvalidTransaction,
    Put,
    StoreEnded,
    Transaction,
)
from tests.metadata.fakes import FakeDisk

MESSAGES = Messages("/riverrun/c/")


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b")]
)
def test_the_end_of_a_prefix_is_the_first_key_behind_it(prefix, end):
    assert end_of(prefix) == end


def test_a_number_that_is_zero_is_compared_all_the_same():
    request = MESSAGES.txn(Transaction((Compare.absent("a"), Compare.unchanged("b", 0)), ()))
    assert [each.WhichOneof("target_union") for each in request.compare] == [
        "create_revision",
        "mod_revision",
    ]


def test_a_key_that_is_compared_twice_is_read_once():
    compares = (Compare.exists("a"), Compare.unchanged("a", 3), Compare.exists("b"))
    request = MESSAGES.txn(Transaction(compares, (Put("a", b""),)))
    assert [each.request_range.key for each in request.failure] == [
        b"/riverrun/c/a",
        b"/riverrun/c/b",
    ]


def test_the_largest_transaction_of_the_port_is_within_what_etcd_takes():
    keys = [f"partitions/{number:040}" for number in range(MAX_OPERATIONS)]
    room = MAX_TRANSACTION_BYTES // MAX_OPERATIONS - 2 * len(keys[0])
    transaction = Transaction(
        tuple(Compare.absent(key) for key in keys), tuple(Put(key, bytes(room)) for key in keys)
    )
    assert MESSAGES.txn(transaction).ByteSize() < MAX_REQUEST_BYTES


def test_a_request_that_etcd_would_refuse_is_refused_before_it_is_sent():
    # Keys are said once in the transaction, and again to be read where it fails.
    keys = [f"{number:09000}" for number in range(MAX_OPERATIONS)]
    transaction = Transaction(tuple(Compare.absent(key) for key in keys), ())
    transaction.check()
    with pytest.raises(InvalidTransaction, match=f"max {MAX_REQUEST_BYTES} B"):
        MESSAGES.txn(transaction)


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        ("UNAVAILABLE", "etcdserver: no leader", Kind.NOTHING),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Kind.NOTHING),
        # Applied, and then answered with this: see quotaApplierV3 in etcd.
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Kind.OPEN),
        ("UNAVAILABLE", "etcdserver: request timed out", Kind.OPEN),
        ("UNAVAILABLE", "etcdserver: leader changed", Kind.OPEN),
        ("UNAVAILABLE", "etcdserver: something of a later version", Kind.OPEN),
        ("UNAVAILABLE", "Socket closed", Kind.OPEN),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Kind.OPEN),
        ("UNIMPLEMENTED", "", Kind.OPEN),
        ("NOT_FOUND", "etcdserver: requested lease not found", Kind.NO_LEASE),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Kind.TOKEN),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Kind.DENIED),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max", Kind.TOO_LARGE),
    ],
)
def test_an_outcome_is_definite_only_where_etcd_says_so(code, said, kind):
    assert understood(grpc.StatusCode[code], said).kind is kind


def test_answers_may_overtake_each_other_but_not_go_back():
    standing = Standing(Mark(7, 10))
    standing.see(7, 12, at_least=10)
    standing.see(7, 11, at_least=10)  # asked before the other was answered
    assert standing.mark == Mark(7, 12)
    with pytest.raises(StoreEnded, match="at revision 11, and was at 12"):
        standing.see(7, 11, at_least=12)
    with pytest.raises(StoreEnded):
        standing.see(7, 13, at_least=12)


def test_another_cluster_is_noticed_by_its_number():
    standing = Standing(Mark())
    standing.see(7, 1, at_least=0)
    with pytest.raises(StoreEnded, match="says it is cluster 8, and it was 7"):
        standing.see(8, 100, at_least=1)


def test_a_data_directory_remembers_how_far_it_has_seen_etcd():
    disk = FakeDisk()
    row = MarkRow(disk, "/riverrun/c/")
    assert row.load() == Mark()
    assert MarkRow.prefix_in(disk) is None
    row.save(Mark(2**64 - 1, 12))
    assert MarkRow(disk, "/riverrun/c/").load() == Mark(2**64 - 1, 12)
    assert MarkRow.prefix_in(disk) == "/riverrun/c/"
    disk.refusals = [StorageFull("no room")]
    row.save(Mark(1, 13))  # an older mark proves less, and is no reason to stop
    assert row.load().revision == 12
    disk.rows[b"metadata/etcd"] = b"\x02" + disk.rows[b"metadata/etcd"][1:]
    with pytest.raises(CorruptData, match="format 2"):
        row.load()
