"""Values as JSON documents: readable with etcdctl, open to fields of newer versions.

Ids are hexadecimal. A document carries a nonce, so that no two writes are equal and a writer that
lost its answer recognises its own success. No version may name a field `unknown` or `nonce`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, TypeVar

import msgspec

from riverrun_server.core.cluster.values import Id, Value
from riverrun_server.ports.metadata import Entry, InvalidDocument

V = TypeVar("V", bound=Value)

_NONCE: Final = "nonce"
_UNKNOWN: Final = "unknown"

_Fields = dict[str, msgspec.Raw]


class JsonDocuments:
    """Implements ports.metadata.Documents."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_write_id, order="deterministic")
        self._fields = msgspec.json.Decoder(_Fields)
        self._decoders: dict[type[Value], msgspec.json.Decoder[Any]] = {}

    def encode(self, value: Value, nonce: bytes) -> bytes:
        """Return a document that no other call with another nonce gives."""
        known = dataclasses.replace(value, unknown=())
        document: dict[str, object] = dict(self._fields.decode(self._encoder.encode(known)))
        del document[_UNKNOWN]
        document |= {name: msgspec.Raw(text.encode()) for name, text in value.unknown}
        document[_NONCE] = nonce.hex()
        return self._encoder.encode(document)

    def decode(self, kind: type[V], entry: Entry) -> V:
        """Return the value that a document holds; fields of a newer version are kept.

        Raises:
            InvalidDocument: it holds something else; the text names key and field.
        """
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = msgspec.json.Decoder(kind, dec_hook=_read_id)
            self._decoders[kind] = decoder
        try:
            fields = self._fields.decode(entry.value)
            value: V = decoder.decode(entry.value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidDocument(
                f"metadata key {entry.key!r} (revision {entry.mod_revision}) holds no valid "
                f"{kind.__name__}: {error}; was it written by a newer version, or by hand?"
            ) from error
        names = {field.name for field in dataclasses.fields(kind)} | {_NONCE}
        unknown = tuple(
            (name, bytes(raw).decode()) for name, raw in fields.items() if name not in names
        )
        return dataclasses.replace(value, unknown=unknown)


def _write_id(value: object) -> str:
    if isinstance(value, Id):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is not part of a document")


def _read_id(kind: type, value: object) -> Id:
    if kind is not Id or not isinstance(value, str):
        raise NotImplementedError(f"{kind.__name__} is not part of a document")
    return Id.parse(value)
