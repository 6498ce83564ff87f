"""The addresses that a client is given, taken apart and checked."""

from __future__ import annotations

from collections.abc import Sequence

from riverrun.errors import Reason, UsageError

_PORT_MAX = 65_535


def parse_bootstrap(bootstrap: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses as a tuple of "host:port", in order and without repeats.

    Raises:
        UsageError: there is none, or one is not "host:port".
    """
    texts = [bootstrap] if isinstance(bootstrap, str) else bootstrap
    addresses = [part.strip() for text in texts for part in text.split(",") if part.strip()]
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


def _refused(text: str) -> UsageError:
    return UsageError(
        f'{text}; use "host:port", several joined by commas, such as "127.0.0.1:7171"',
        reason=Reason.INVALID_REQUEST,
    )
