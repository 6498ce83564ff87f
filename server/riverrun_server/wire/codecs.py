"""Compression of record sets, every expansion bounded before it is made.

A compressed batch is one frame and nothing behind it. Declared sizes are not believed: expansion
stops one byte past the limit, whatever the frame says of itself. All of these release the GIL.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol, cast

import lz4.frame

from riverrun_server.core.errors import Reason, Refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NONE, GZIP, ZSTD, LZ4 = 1, 2, 3, 4
UNCOMPRESSED = frozenset({0, NONE})
NAMES = {0: "none", NONE: "none", GZIP: "gzip", ZSTD: "zstd", LZ4: "lz4"}

# A larger window would let a frame of a few bytes make the decoder hold up to 2 GiB.
_ZSTD_WINDOW_LOG_MAX = 23
_GZIP_WBITS = 31


class _Expander(Protocol):
    """What the three libraries have in common."""

    eof: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> _Expander:
    return cast("_Expander", _Gzip())


class _Gzip:
    """zlib's decompressor with the bounded calls of its younger peers."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP_WBITS)
        self._fed = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        fed, self._fed = self._fed, True
        return self._inner.decompress(self._inner.unconsumed_tail if fed else data, max_length)


def _zstd() -> _Expander:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG_MAX}
    return cast("_Expander", zstd.ZstdDecompressor(options=options))


def _lz4() -> _Expander:
    return cast("_Expander", lz4.frame.LZ4FrameDecompressor())


_EXPANDERS: dict[int, Callable[[], _Expander]] = {GZIP: _gzip, ZSTD: _zstd, LZ4: _lz4}


def expand(codec: int, data: bytes, limit: int) -> bytes:
    """Return the record set in `data`, of at most `limit` bytes.

    Raises:
        Refusal: UNSUPPORTED_CODEC; INVALID_RECORD for a frame that is damaged, cut short or
            followed by something; BATCH_TOO_LARGE for one that expands beyond the limit.
    """
    if codec in UNCOMPRESSED:
        return data
    make = _EXPANDERS.get(codec)
    if make is None:
        raise Refusal(
            Reason.UNSUPPORTED_CODEC,
            f"codec {codec} is unknown; use none (1), gzip (2), zstd (3) or lz4 (4)",
        )
    expander, out, size, feed = make(), [], 0, data
    try:
        while not expander.eof and size <= limit:
            piece = expander.decompress(feed, limit + 1 - size)
            feed = b""
            size += len(piece)
            out.append(piece)
            if not piece and not expander.eof:
                raise Refusal(
                    Reason.INVALID_RECORD,
                    f"the {NAMES[codec]} frame ends before its end: {len(data)} bytes hold only "
                    f"{size} expanded ones; send the whole frame",
                )
    except (zlib.error, zstd.ZstdError, RuntimeError) as error:
        raise Refusal(
            Reason.INVALID_RECORD, f"the records are no {NAMES[codec]} frame: {error}"
        ) from error
    if size > limit:
        raise Refusal(
            Reason.BATCH_TOO_LARGE,
            f"the {NAMES[codec]} batch of {len(data)} bytes expands to more than the {limit} bytes "
            "that the topic allows (max.batch.bytes); send smaller batches",
        )
    if expander.unused_data:
        raise Refusal(
            Reason.INVALID_RECORD,
            f"{len(expander.unused_data)} bytes follow the {NAMES[codec]} frame; a batch is one frame",
        )
    return b"".join(out)


def compress(codec: int, data: bytes) -> bytes:
    """Return `data` as one frame of a codec that `expand` knows."""
    if codec in UNCOMPRESSED:
        return data
    if codec == GZIP:
        return zlib.compress(data, 6, wbits=_GZIP_WBITS)
    if codec == ZSTD:
        return zstd.compress(data, 3)
    assert codec == LZ4, f"codec {codec} is unknown"
    return cast("bytes", lz4.frame.compress(data))
