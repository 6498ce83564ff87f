"""The note outside of the database on how far it is durable: what else would tell that it shrank?

A database that has lost its newest write-ahead log opens without complaint. The watermark names the
last write known to be on the disk, so a database that has fewer writes has lost some. Beside it
stand the incarnation whose data it speaks of, and whether the broker has been closed in order.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from riverrun_server.ports.log import CorruptData
from riverrun_server.storage.durable_file import replace_file
from riverrun_server.storage.rocks_errors import translated

NAME: Final = "watermark"

# Magic, version, clean, incarnation, write number; a CRC-32 of all that follows.
_BODY: Final = struct.Struct(">4sBB16sQ")
_CRC: Final = struct.Struct(">I")
_MAGIC: Final = b"RRWM"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a store is durable.

    Attributes:
        incarnation: the life of the data that it speaks of, 16 bytes.
        written: the number of the last write known to be on the disk.
        clean: the store has been closed after that write and not been opened since.
    """

    incarnation: bytes
    written: int
    clean: bool

    def pack(self) -> bytes:
        """Return the content of the file."""
        body = _BODY.pack(_MAGIC, _VERSION, self.clean, self.incarnation, self.written)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def unpack(cls, content: bytes) -> Watermark:
        """Return what the content of the file says.

        Raises:
            CorruptData: it is something else.
        """
        if len(content) != _BODY.size + _CRC.size:
            raise CorruptData(f"{len(content)} bytes, expected {_BODY.size + _CRC.size}")
        body, (crc,) = content[: _BODY.size], _CRC.unpack(content[_BODY.size :])
        magic, version, clean, incarnation, written = _BODY.unpack(body)
        if (magic, version) != (_MAGIC, _VERSION) or crc != zlib.crc32(body):
            raise CorruptData("the checksum, the version or the first bytes are wrong")
        return cls(incarnation, written, bool(clean))


def read_watermark(folder: Path) -> Watermark | None:
    """Return a data directory's watermark, None where there is none.

    Raises:
        CorruptData: it is damaged.
        StorageError: it cannot be read.
    """
    path = folder / NAME
    with translated(f"reading {path}"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return Watermark.unpack(content)
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from None


def write_watermark(folder: Path, watermark: Watermark) -> None:
    """Replace a data directory's watermark; it is on the disk when this returns.

    Raises:
        StorageError: the old one is still there.
    """
    replace_file(folder / NAME, watermark.pack())
