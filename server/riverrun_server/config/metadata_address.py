"""Where the metadata is kept: in the broker's own store, or in etcd under a cluster's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from riverrun_server.rpc.listener import Address

EMBEDDED: Final = "embedded"
_URL: Final = re.compile(r"(etcds?)://([^/]+)/(.+)")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_MEMBERS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """The members of an etcd, and the cluster whose metadata is there.

    Attributes:
        members: where clients of etcd connect.
        cluster: a name; brokers that say the same one are one cluster.
        tls: whether the members speak TLS.
    """

    members: tuple[Address, ...]
    cluster: str
    tls: bool

    @property
    def prefix(self) -> str:
        """What every key of the cluster begins with in etcd."""
        return f"/riverrun/{self.cluster}/"

    @property
    def is_loopback(self) -> bool:
        """Whether nothing leaves this machine on the way there."""
        return all(member.is_loopback for member in self.members)

    def __str__(self) -> str:
        """Write it as it is read."""
        scheme = "etcds" if self.tls else "etcd"
        return f"{scheme}://{','.join(map(str, self.members))}/{self.cluster}"


@dataclass(frozen=True, slots=True)
class MetadataAddress:
    """The kind of the setting; None is the broker's own store."""

    accepts: str = (
        "embedded, or etcd://HOST:PORT,HOST:PORT/CLUSTER with up to 16 members and a name of up to "
        "63 letters, digits, '.', '_' or '-' (etcds:// for TLS)"
    )

    def read(self, raw: object) -> EtcdAddress | None:
        """Convert text."""
        if raw is None or isinstance(raw, EtcdAddress):
            return raw
        if raw == EMBEDDED:
            return None
        found = _URL.fullmatch(raw) if isinstance(raw, str) else None
        if found is None or _NAME.fullmatch(found[3]) is None or found[3] in (".", ".."):
            raise ValueError
        if "@" in found[2]:
            raise ValueError("whom to log in as goes into etcd.user and etcd.password_file")
        members = tuple(Address.parse(member) for member in found[2].split(","))
        if len(members) > _MEMBERS_MAX or len(set(members)) < len(members):
            raise ValueError("a member is there twice, or there are too many")
        if not all(member.port for member in members):
            raise ValueError("a member needs its port")
        return EtcdAddress(members, found[3], tls=found[1] == "etcds")

    def show(self, value: EtcdAddress | None) -> str:
        """Write it as it is read."""
        return EMBEDDED if value is None else str(value)
