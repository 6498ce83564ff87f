"""How a broker reaches etcd and where its keys stand there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for TLS to etcd.

    Attributes:
        ca: who may have signed etcd's certificate; None is whom the machine trusts.
        certificate: the broker's own, for an etcd that asks for one.
        key: of that certificate.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def load(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            OSError: one cannot be read.
        """
        ca, certificate, key = (
            None if path is None else path.read_bytes()
            for path in (self.ca, self.certificate, self.key)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, slots=True)
class User:
    """Who the broker is to etcd; the password is read anew for every log-in, so it can be changed."""

    name: str
    password_file: Path

    def password(self) -> str:
        """Return the file's first line.

        Raises:
            OSError: it cannot be read.
        """
        return self.password_file.read_text().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """How a broker reaches etcd.

    Attributes:
        endpoints: HOST:PORT of each member.
        prefix: what every key begins with in etcd; the broker sees keys without it.
        tls: None is plaintext.
        user: None is nobody in particular.
        timeout_s: how long one call may take, the search for a member that answers included.
    """

    endpoints: tuple[str, ...]
    prefix: str
    tls: TlsFiles | None = None
    user: User | None = None
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """Insist on what the store relies on."""
        assert self.endpoints, "etcd without an endpoint"
        # A range of all keys needs an end, and the keys of two clusters must not touch.
        assert self.prefix.endswith("/"), self.prefix
        assert self.timeout_s > 0, self.timeout_s
