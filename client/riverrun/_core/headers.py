"""A record's headers as the client keeps them: pairs of its own, whatever they were given as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from riverrun.errors import Reason, UsageError


def own_headers(
    headers: Iterable[tuple[str, bytes]] | Mapping[str, bytes],
) -> tuple[tuple[str, bytes], ...]:
    """Copy what the application may change, or can be read only once; types are checked elsewhere.

    >>> own_headers({"shop": b"3"})
    (('shop', b'3'),)

    Raises:
        UsageError: they are not pairs.
    """
    if headers == ():
        return ()  # of most records
    if type(headers) is tuple and all(type(header) is tuple for header in headers):
        pairs: tuple[tuple[str, bytes], ...] = headers
        if all(len(header) == 2 for header in pairs):
            return pairs
    try:
        given = headers.items() if isinstance(headers, Mapping) else headers
        return tuple([(name, content) for name, content in given])
    except (TypeError, ValueError) as error:
        shown = repr(headers)
        raise UsageError(
            f"the headers are {shown if len(shown) < 100 else type(headers).__name__}; they must be "
            'pairs of str and bytes, as [("name", b"value")], or a mapping, as {"name": b"value"}',
            reason=Reason.INVALID_REQUEST,
        ) from error
