"""Opens the metadata store that the settings name, and no other than the data directory began with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import structlog

from riverrun_server.config.metadata_address import EtcdAddress
from riverrun_server.config.settings import Settings
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.metadata.etcd.mark import MarkRow
from riverrun_server.metadata.etcd.options import EtcdOptions, TlsFiles, User
from riverrun_server.metadata.etcd.standing import Mark
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.metadata.rows import Rows
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.log import Table
from riverrun_server.ports.metadata import MetadataError, MetadataStore
from riverrun_server.runtime.supervisor import CannotStart

_log = structlog.stdlib.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_metadata(
    settings: Settings,
    table: Table,
    durable: Callable[[], Awaitable[None]],
    clock: Clock,
    dice: Dice,
) -> AsyncIterator[MetadataStore]:
    """Open the store, which answers from then on.

    Args:
        settings: say which.
        table: of the broker's own store: the metadata itself, or what is remembered of etcd.
        durable: returns once everything written to the table before the call is on the disk.
        clock: times leases of the embedded store.
        dice: makes ids, and spreads pauses.

    Raises:
        CannotStart: it cannot be reached, or the data directory's metadata is elsewhere.
        CorruptData: the rows are damaged, or of another version.
    """
    address = settings.metadata
    _check_home(table, address, str(settings.data_dir))
    if address is None:
        async with EmbeddedStore(table, durable, clock, dice) as embedded:
            yield embedded
        return
    row = MarkRow(table, address.prefix)
    mark = Mark() if settings.etcd.confirm_store else row.load()
    async with open_etcd(settings, address, mark, row.save, dice) as store:
        _log.info("metadata is in etcd", address=str(address), prefix=address.prefix)
        yield store


@contextlib.asynccontextmanager
async def open_etcd(
    settings: Settings,
    address: EtcdAddress,
    mark: Mark,
    progress: Callable[[Mark], None],
    dice: Dice,
) -> AsyncIterator[EtcdStore]:
    """Open the metadata of a cluster in etcd, which answers from then on.

    Args:
        settings: say how etcd is reached.
        address: where it is.
        mark: how far it was seen before.
        progress: told the newest mark whenever it has moved.
        dice: spreads pauses.

    Raises:
        CannotStart: it cannot be reached.
    """
    try:
        opened = EtcdStore(_options(settings, address), dice, mark=mark, progress=progress)
    except OSError as error:
        raise CannotStart(f"etcd: {error.filename}: {error.strerror}") from error
    async with opened as store:
        try:
            await store.wait_until_it_answers(settings.etcd.start_timeout_s)
        except MetadataError as error:
            raise CannotStart(f"metadata {address}: {error}") from error
        yield store


@contextlib.contextmanager
def without_metadata_no_start() -> Iterator[None]:
    """End with a line for the operator where the metadata fails what a start needs.

    Raises:
        CannotStart: in the place of a MetadataError.
    """
    try:
        yield
    except MetadataError as error:
        raise CannotStart(f"metadata: {error}") from error


def _check_home(table: Table, address: EtcdAddress | None, data_dir: str) -> None:
    """Refuse a store in which the topics of this data directory are not.

    Raises:
        CannotStart
    """
    told = "embedded" if address is None else str(address)
    prefix = MarkRow.prefix_in(table)
    if prefix is not None and (address is None or address.prefix != prefix):
        raise CannotStart(
            f"metadata is {told}, but the topics of data directory {data_dir} are in etcd under "
            f"{prefix!r}; start it with --metadata etcd://HOST:PORT/{prefix.split('/')[-2]}, or "
            "another data directory"
        )
    revision, entries = Rows(table).load()
    if address is not None and revision:
        raise CannotStart(
            f"metadata is {told}, but data directory {data_dir} keeps its metadata itself "
            f"({len(entries)} keys at revision {revision}); start it with --metadata embedded, with "
            "another data directory, or take its metadata there first: riverrun-server "
            f"move-metadata --data-dir {data_dir} --metadata {told}"
        )


def _options(settings: Settings, address: EtcdAddress) -> EtcdOptions:
    etcd = settings.etcd
    user = None
    if etcd.user:
        assert etcd.password_file is not None, "config/checks.py has let it pass"
        user = User(etcd.user, etcd.password_file)
    return EtcdOptions(
        endpoints=tuple(map(str, address.members)),
        prefix=address.prefix,
        tls=TlsFiles(etcd.ca_file, etcd.cert_file, etcd.key_file) if address.tls else None,
        user=user,
        timeout_s=etcd.timeout_s,
    )
