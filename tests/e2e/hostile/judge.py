"""What an answer to a bent request may be, and what must be true of the log afterwards."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from riverrun.v1 import errors_pb2
from tests.e2e.hostile.mutations import Method
from tests.e2e.hostile.raw_http2 import Answer

_OK, _UNKNOWN, _UNIMPLEMENTED, _INTERNAL = 0, 2, 12, 13
# What gRPC refuses by itself, in its own words.
_MESSAGE_BYTES_MAX = 4 << 20
_ERROR = errors_pb2.Error.DESCRIPTOR


def messages_of(data: bytes) -> list[bytes]:
    """Return the messages in the body of an answer."""
    out = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        out.append(data[5 : 5 + size])
        data = data[5 + size :]
    return out


@dataclass
class Judge:
    """Counts what came back, and keeps what should not have.

    Attributes:
        outcomes: how many answers there were, by reason, or OK.
        complaints: what is wrong, in words.
        refused: values of records of which the broker said that nothing happened.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)

    def look(self, method: Method, sent: list[bytes], answer: Answer, values: set[bytes]) -> None:
        """Judge the answer to one call, whose records have these values."""
        if len(sent) == 1 and max(map(len, sent)) > _MESSAGE_BYTES_MAX:
            self.outcomes["too large for gRPC"] += 1
            return
        if values and self._nothing_happened(method, sent, answer):
            self.refused |= values
        for wrong in self._wrong(method, answer):
            shown = b"|".join(sent)[:300].hex()
            self.complaints.append(f"{method.path}: {wrong}; sent {shown}")

    def _nothing_happened(self, method: Method, sent: list[bytes], answer: Answer) -> bool:
        """Whether the answer says for certain that nothing of the call took effect."""
        if answer.status is None or (method.streams and len(sent) > 1):
            return False
        if answer.status != _OK and not answer.data:
            error = details_of(answer)
            return error is not None and error.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
        if method.streams or answer.status != _OK:
            return False
        (data,) = messages_of(answer.data)
        results = getattr(method.answer.FromString(data), "results", ())
        return bool(results) and all(
            each.error.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED for each in results
        )

    def _wrong(self, method: Method, answer: Answer) -> list[str]:
        try:
            inside = [
                error
                for data in messages_of(answer.data)
                for error in _errors(method.answer.FromString(data))
            ]
        except DecodeError as error:
            return [f"the answer is no {method.answer.DESCRIPTOR.name}: {error}"]
        for error in inside:
            self.outcomes[_reason(error)] += 1
        found = [w for error in inside for w in _unsaid(error)]
        if answer.status is None:
            # A stream that goes on until its caller hangs up, or a call that outlives its patience.
            self.outcomes["open"] += 1
            return found
        if answer.status == _OK:
            self.outcomes["OK"] += 1
            return found
        if answer.status in (_UNKNOWN, _INTERNAL, _UNIMPLEMENTED):
            return [*found, f"status {answer.status}: {answer.headers.get('grpc-message')}"]
        error = details_of(answer)
        if error is None:
            return [*found, f"status {answer.status} without our details: {answer.headers}"]
        self.outcomes[_reason(error)] += 1
        return [*found, *_unsaid(error)]


def details_of(answer: Answer) -> errors_pb2.Error | None:
    """Return the Error within the details of a failed call, or None where there is none."""
    packed = answer.headers.get("grpc-status-details-bin")
    if packed is None:
        return None
    status, error = Status.FromString(base64.b64decode(packed + "==")), errors_pb2.Error()
    return error if status.code == answer.status and status.details[0].Unpack(error) else None


def _reason(error: errors_pb2.Error) -> str:
    return errors_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def _unsaid(error: errors_pb2.Error) -> list[str]:
    """Return what an error leaves out, or says of a broker's own fault."""
    found = []
    if error.reason in (errors_pb2.ERROR_REASON_UNSPECIFIED, errors_pb2.ERROR_REASON_INTERNAL):
        found.append(f"the reason is {_reason(error)}: {error.message}")
    if error.outcome == errors_pb2.OUTCOME_UNSPECIFIED:
        found.append("it does not say whether something happened")
    if not error.message or len(error.message.encode()) > 1024 or not error.message.isprintable():
        found.append(f"the text is empty, too long or not printable: {error.message[:100]!r}")
    return found


def _errors(message: Message) -> list[errors_pb2.Error]:
    """Return every error within a message."""
    if message.DESCRIPTOR is _ERROR:
        return [message]
    found = []
    for each, value in message.ListFields():
        if each.message_type is None or each.message_type.GetOptions().map_entry:
            continue
        for part in value if each.is_repeated else (value,):
            found += _errors(part)
    return found
