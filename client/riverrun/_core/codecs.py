"""Compress record sets, and expand them within a bound.

Declared sizes are not believed: expansion stops one byte past the limit, whatever a frame says of
itself. zstd and lz4 come from optional packages; what is not installed is not offered to brokers,
which then expand for us.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Literal, Protocol, TypeAlias

from riverrun.errors import CorruptDataError, Reason, UsageError

Compression: TypeAlias = Literal["none", "gzip", "zstd"]

NONE, GZIP, ZSTD, LZ4 = 1, 2, 3, 4
"""Numbers of riverrun.v1.Codec; 0 is none as well."""
CODECS: dict[str, int] = {"none": NONE, "gzip": GZIP, "zstd": ZSTD}

EXPANDED_BYTES_MAX = 3 << 20
"""No broker accepts a batch that expands to more."""

_GZIP_WBITS = 31
_ZSTD_WINDOW_LOG_MAX = 23
_MODULES = {ZSTD: "backports.zstd", LZ4: "lz4.frame"}
_NAMES = {GZIP: "gzip", ZSTD: "zstd", LZ4: "lz4"}


class _Expander(Protocol):
    """What the three libraries have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def codec_for(compression: str) -> int:
    """Return the codec's number.

    Raises:
        UsageError: there is no such compression, or its package is not installed.
    """
    codec = CODECS.get(compression) if isinstance(compression, str) else None
    if codec is None:
        raise UsageError(
            f"compression is {compression!r}; use one of {', '.join(CODECS)}",
            reason=Reason.INVALID_REQUEST,
        )
    if codec in _MODULES and _module(codec) is None:
        raise UsageError(
            f"compression {compression} needs the package backports.zstd, which is not installed; "
            "run `pip install backports.zstd`, or use gzip",
            reason=Reason.UNSUPPORTED_CODEC,
        )
    return codec


@functools.cache
def accepted_codecs() -> tuple[int, ...]:
    """Return what can be expanded here, for the broker to know."""
    return (NONE, GZIP, *(codec for codec in _MODULES if _module(codec) is not None))


def compress(codec: int, data: bytes) -> bytes:
    """Return `data` as one frame. Costs milliseconds a megabyte and releases the GIL."""
    if codec == GZIP:
        return zlib.compress(data, 6, wbits=_GZIP_WBITS)
    if codec == ZSTD:
        module = _module(ZSTD)
        assert module is not None, "codec_for has looked"
        frame: bytes = module.compress(data, 3)
        return frame
    assert codec in (0, NONE), f"codec {codec} is not one that we compress with"
    return data


def expand(codec: int, data: bytes, limit_bytes: int = EXPANDED_BYTES_MAX) -> bytes:
    """Return the record set in `data`, of at most `limit_bytes`.

    Raises:
        CorruptDataError: the frame is damaged or cut short, or expands beyond the limit; or nobody
            here can expand it.
    """
    if codec in (0, NONE):
        return data
    make = _EXPANDERS.get(codec)
    if make is None or (codec in _MODULES and _module(codec) is None):
        raise _corrupt(f"codec {codec} cannot be expanded here and was not asked for")
    expander, out, size, feed = make(), [], 0, data
    while not expander.eof and size <= limit_bytes:
        try:
            piece = expander.decompress(feed, limit_bytes + 1 - size)
        except Exception as error:
            # Each library has its own class of error, and two of them may not be installed.
            raise _corrupt(f"the records are no {_NAMES[codec]} frame: {error}") from error
        if not piece and not expander.eof:
            raise _corrupt(f"the {_NAMES[codec]} frame ends before its end")
        feed = b""
        size += len(piece)
        out.append(piece)
    if size > limit_bytes:
        raise _corrupt(f"a {_NAMES[codec]} batch expands to more than {limit_bytes} bytes")
    return b"".join(out)


class _Gzip:
    """zlib's decompressor with the calls of its younger peers."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP_WBITS)
        self._fed = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        fed, self._fed = self._fed, True
        return self._inner.decompress(self._inner.unconsumed_tail if fed else data, max_length)


def _zstd() -> _Expander:
    module = _module(ZSTD)
    assert module is not None, "expand has looked"
    options = {int(module.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG_MAX}
    expander: _Expander = module.ZstdDecompressor(options=options)
    return expander


def _lz4() -> _Expander:
    module = _module(LZ4)
    assert module is not None, "expand has looked"
    expander: _Expander = module.LZ4FrameDecompressor()
    return expander


_EXPANDERS: dict[int, Callable[[], _Expander]] = {GZIP: _Gzip, ZSTD: _zstd, LZ4: _lz4}


def _corrupt(message: str) -> CorruptDataError:
    return CorruptDataError(message, reason=Reason.CORRUPT_DATA)


@functools.cache
def _module(codec: int) -> ModuleType | None:
    try:
        return importlib.import_module(_MODULES[codec])
    except ImportError:
        return None
