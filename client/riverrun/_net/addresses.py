"""The addresses that a client is given, taken apart and checked."""

from __future__ import annotations

from collections.abc import Sequence

from riverrun.errors import Reason, UsageError

DEFAULT_PORT = 7171
"""Where brokers listen unless told otherwise."""
_PORT_MAX = 65_535


def parse_bootstrap(bootstrap: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses as a tuple of "host:port", in order and without repeats.

    Raises:
        UsageError: there is none, or one is neither "host:port" nor a host alone.
    """
    try:
        texts = [bootstrap] if isinstance(bootstrap, str) else [*bootstrap]
        parts = [part.strip() for text in texts for part in text.split(",")]
    except (TypeError, AttributeError):
        raise _refused(f"the bootstrap address is {bootstrap!r}") from None
    addresses = [with_port(part) for part in parts if part]
    if not addresses:
        raise _refused(f"the bootstrap address is {bootstrap!r}")
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
            raise _refused(f"the bootstrap address is {address!r}")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise _refused(
                f"the bootstrap address is {address!r}, an IPv6 address without brackets"
            )
    return tuple(dict.fromkeys(addresses))


def with_port(address: str) -> str:
    """Add the default port to an address that is a host alone.

    >>> with_port("localhost"), with_port("[::1]"), with_port("h:1")
    ('localhost:7171', '[::1]:7171', 'h:1')
    """
    if address and (":" not in address or address.endswith("]")):
        return f"{address}:{DEFAULT_PORT}"
    return address


def _refused(text: str) -> UsageError:
    return UsageError(
        f'{text}; use "host:port", several joined by commas, such as "127.0.0.1:7171"; without a port '
        f"it is {DEFAULT_PORT}",
        reason=Reason.INVALID_REQUEST,
    )
