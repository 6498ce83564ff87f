"""Where a broker listens, and under which address clients are told to reach it."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

# To gRPC "unix:7171" is no host and port but a socket in the file system. All its connections have the
# same name, and each connection's share of the broker's room is counted under its name.
_SCHEMES: Final = frozenset({"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock"})


class Address(NamedTuple):
    """A host name or IP address, and a port; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT, an IPv6 address in brackets.

        Raises:
            ValueError: it is something else.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        fits = host and (bracketed or ":" not in host) and host.isprintable() and " " not in host
        fits = fits and host.lower() not in _SCHEMES
        if not (colon and fits and port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError("not HOST:PORT with a port from 0 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def shifted(self, by: int) -> Address:
        """Return the address `by` ports further; port 0 stays 0."""
        return self._replace(port=self.port + by if self.port else 0)

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every interface, so that nobody can connect to it by this name."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        ip = _ip(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback


class Protocol(enum.Enum):
    """How a listener speaks."""

    PLAINTEXT = "plaintext"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One port for clients.

    Attributes:
        name: tells listeners apart, in metrics and in the addresses that clients are told.
        bind: where it listens.
        advertised: where its clients are told to connect.
        protocol: how it speaks.
    """

    name: str = "clients"
    bind: Address
    advertised: Address
    protocol: Protocol = Protocol.PLAINTEXT

    def bound(self, port: int) -> Listener:
        """Return the listener once the system has said which port it got."""
        advertised = self.advertised
        if advertised.port == 0:
            advertised = advertised._replace(port=port)
        return dataclasses.replace(self, bind=self.bind._replace(port=port), advertised=advertised)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
