"""One ProduceStream: appends are submitted as they are read, answers go out together in order.

Intuition: reading and answering are two tasks that meet in the AnswerOrder. The reader submits and
never waits for the disk; whatever is answered by the time the writer runs goes out in one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from riverrun.v1 import producer_pb2
from riverrun_server.core.answer_order import AnswerOrder, Part, Pending
from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader
from riverrun_server.core.produce_lanes import ProduceLanes
from riverrun_server.ports.partitions import Acks, Append, Appended, PartitionAccess
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.appends import (
    AppendRules,
    Where,
    acks_of,
    check_records,
    tell,
    timed_out,
    where,
)
from riverrun_server.rpc.partitioning import choose_partitions
from riverrun_server.rpc.sending import send
from riverrun_server.runtime.in_flight import ConnectionBudget
from riverrun_server.wire.ingress import AcceptedBatch


class Received(NamedTuple):
    """A message of the stream, and how many bytes it came in."""

    message: producer_pb2.ProduceStreamRequest
    size_bytes: int


Context: TypeAlias = grpc.aio.ServicerContext[Received, bytes]
_Append: TypeAlias = producer_pb2.ProduceAppend

# What an append takes beside its bytes while it waits for its answer to be sent; without it a
# stream of empty appends whose answers nobody reads were free.
_APPEND_OVERHEAD_BYTES = 1024
# An answer message stays far below what an untuned stub accepts.
_ANSWERS_PER_MESSAGE = 4096
# How often a stream looks for answers that are overdue.
_OVERDUE_CHECK_S = 1.0
_RECONNECT_AFTER_S = 1


class ProduceStream:
    """Serves one stream.

    Transitions: reading -> draining (the client has closed its half, broken the protocol, or the
    broker shuts down) -> ended, when everything that was read has been answered.
    """

    def __init__(self, rules: AppendRules, budget: ConnectionBudget, sticky: int) -> None:
        self._rules = rules
        self._budget = budget
        self._sticky = sticky
        self._order: AnswerOrder[Where, Appended] = AnswerOrder()
        self._refusing = ProduceLanes()
        self._acks = Acks.ALL
        self._direct = False
        # In which leader epoch it was told who leads elsewhere, by partition.
        self._leaders_told: dict[Where, int] = {}
        self._timeout_s = rules.timeout_s(None)
        self._wake = asyncio.Event()
        self._waits_for_client = False
        self._notes = call_notes.current()

    async def run(self, context: Context, draining: asyncio.Event) -> None:
        """Serve the stream to its end.

        Raises:
            Refusal: the client broke the protocol; what it sent before has been answered.
        """
        await send(context.write, self._started())
        reader = asyncio.create_task(self._read(context, draining), name="produce stream: read")
        drain = asyncio.create_task(draining.wait(), name="produce stream: drain")
        # What has been read is carried through; only the wait for the next message is cut.
        drain.add_done_callback(lambda _: reader.cancel() if self._waits_for_client else None)
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            await self._write(context, reader)
            if not reader.cancelled():
                reader.result()
            if draining.is_set():
                await send(context.write, _going_away())
        finally:
            reader.cancel()
            drain.cancel()
            await asyncio.gather(reader, drain, return_exceptions=True)
            self._budget.close()

    # Reading.

    async def _read(self, context: Context, draining: asyncio.Event) -> None:
        first = True
        while not draining.is_set():
            self._waits_for_client = True
            each = await _message(context)
            self._waits_for_client = False
            if each is None:
                return
            message, size_bytes = each
            kind = message.WhichOneof("kind")
            if kind == "append":
                await self._append(message.append, size_bytes)
            elif kind == "start" and first:
                start = message.start
                self._acks = acks_of(start.acks)
                self._direct = start.do_not_proxy
                timeout = start.timeout if start.HasField("timeout") else None
                self._timeout_s = self._rules.timeout_s(timeout)
            else:
                raise Refusal(
                    Reason.INVALID_REQUEST,
                    "`start` may only be the first message of a stream"
                    if kind
                    else "a message of the stream must have `start` or `append`",
                )
            first = False

    async def _append(self, append: _Append, size_bytes: int) -> None:
        self._notes.received_bytes += size_bytes
        size = size_bytes + _APPEND_OVERHEAD_BYTES
        await self._budget.take(size)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        pending = self._order.begin(append.tag, size, deadline)
        if append.HasField("partition"):
            await self._append_to(append, pending)
        else:
            try:
                await self._append_anywhere(append, pending)
            except Refusal as refusal:
                self._refuse(pending, (append.topic, append.topic_id, 0), refusal)
        self._order.seal(pending)
        if self._order.has_ready:
            self._wake.set()

    async def _append_to(self, append: _Append, pending: Pending[Where, Appended]) -> None:
        # What was refused before its partition was found counts as a failure there too, so the
        # lanes of refusals go by the name that the client gives.
        named: Where = (append.topic, append.topic_id, append.partition)
        place, claimed = named, _claimed_header(append)
        try:
            access = self._rules.partition(*named, direct=self._direct)
            place = where(access)
            self._check_admitted(named, claimed, append.attempt)
            batch = await self._batch(access, append)
        except Refusal as refusal:
            self._refusing.answered(named, claimed, append.attempt, refusal)
            self._refuse(pending, place, refusal, claimed.record_count)
            return
        expected = append.expected_offset if append.HasField("expected_offset") else None
        self._submit(pending, access, batch, named, append.attempt, expected)

    async def _append_anywhere(self, append: _Append, pending: Pending[Where, Appended]) -> None:
        if append.HasField("batch") or append.HasField("expected_offset"):
            raise Refusal(
                Reason.INVALID_REQUEST,
                "`partition` may be left out only with `records`: a batch and an expected offset "
                "belong to one partition",
            )
        check_records(len(append.records))
        accesses = self._rules.partitions(append.topic, append.topic_id, direct=self._direct)
        chosen = choose_partitions(append.records, len(accesses), self._sticky)
        for number, records in chosen.items():
            access = accesses[number]
            named: Where = (append.topic, append.topic_id, number)
            claimed = BatchHeader(len(records), 0)
            try:
                self._check_admitted(named, claimed, append.attempt)
                batch = await self._rules.pack(access, records)
            except Refusal as refusal:
                self._refusing.answered(named, claimed, append.attempt, refusal)
                self._refuse(pending, where(access), refusal, len(records))
                continue
            self._submit(pending, access, batch, named, append.attempt, None)

    async def _batch(self, access: PartitionAccess, append: _Append) -> AcceptedBatch:
        if not append.HasField("batch"):
            return await self._rules.pack(access, append.records)
        if append.records:
            raise Refusal(Reason.INVALID_REQUEST, "an append has `batch` or `records`, not both")
        return await self._rules.accept(access, append.batch)

    def _submit(
        self,
        pending: Pending[Where, Appended],
        access: PartitionAccess,
        batch: AcceptedBatch,
        named: Where,
        attempt: int,
        expected: int | None,
    ) -> None:
        part = self._order.add(pending, where(access))

        def done(appended: Appended) -> None:
            self._refusing.answered(named, batch.header, attempt, appended.error)
            self._answered(pending, part, appended)

        self._notes.took(access.topic, batch.header.record_count)
        access.submit(Append(batch, self._acks, done, expected))

    def _refuse(
        self,
        pending: Pending[Where, Appended],
        place: Where,
        refusal: Refusal,
        record_count: int = 0,
    ) -> None:
        part = self._order.add(pending, place)
        self._answered(pending, part, Appended(None, record_count, error=refusal))

    def _check_admitted(self, named: Where, header: BatchHeader, attempt: int) -> None:
        """Refuse what follows a failure that the client has not shown to know of."""
        refusal = self._refusing.admit(named, header, attempt)
        if refusal is not None:
            raise refusal

    # Answering.

    def _answered(
        self, pending: Pending[Where, Appended], part: Part[Where, Appended], appended: Appended
    ) -> None:
        self._order.answer(pending, part, appended)
        if self._order.has_ready:
            self._wake.set()

    async def _write(self, context: Context, reader: asyncio.Task[None]) -> None:
        """Send answers until everything that was read has been answered."""
        loop = asyncio.get_running_loop()
        check_at = loop.time() + _OVERDUE_CHECK_S
        while not reader.done() or self._order:
            if not self._order.has_ready:
                timer = loop.call_at(check_at, self._wake.set)
                await self._wake.wait()
                timer.cancel()
            self._wake.clear()
            if _is_broken(reader):
                return  # what it left half done would never be answered
            if loop.time() >= check_at:
                check_at = loop.time() + _OVERDUE_CHECK_S
                self._fail_overdue(loop.time())
            while ready := self._order.take(_ANSWERS_PER_MESSAGE):
                self._budget.give(sum(pending.size_bytes for pending in ready))
                await send(context.write, _answers(ready, self._names_leader))

    def _fail_overdue(self, now: float) -> None:
        refusal = timed_out(self._timeout_s)
        for pending in self._order.overdue(now):
            for part in pending.parts:
                self._order.answer(pending, part, Appended(None, 0, error=refusal))

    def _names_leader(self, place: Where, leader: LeaderHint) -> bool:
        """Return whether who leads a partition is news to the client; then it counts as told."""
        if self._leaders_told.get(place) == leader.leader_epoch:
            return False
        self._leaders_told[place] = leader.leader_epoch
        return True

    def _started(self) -> bytes:
        limits = self._rules.limits
        return producer_pb2.ProduceStreamResponse(
            started=producer_pb2.ProduceStarted(
                max_unacknowledged_batches=limits.max_unacknowledged_batches,
                max_in_flight_bytes=limits.max_in_flight_bytes_per_connection,
                max_batch_bytes=limits.max_batch_bytes,
                max_batch_records=limits.max_batch_records,
            )
        ).SerializeToString()


def received(data: bytes) -> Received:
    """Parse a message; its size is known only here, and protobuf would serialise it to tell.

    Raises:
        DecodeError: it is none.
    """
    return Received(producer_pb2.ProduceStreamRequest.FromString(data), len(data))


async def _message(context: Context) -> Received | None:
    """Return the next message, or None where the client has closed its half."""
    try:
        message: object = await context.read()
    except DecodeError as error:
        raise Refusal(
            Reason.INVALID_REQUEST, f"a message of the stream is no ProduceStreamRequest: {error}"
        ) from error
    return message if isinstance(message, Received) else None


def _is_broken(reader: asyncio.Task[None]) -> bool:
    """Return whether a bug ended the reading, not the client."""
    if not reader.done() or reader.cancelled():
        return False
    error = reader.exception()
    return error is not None and not isinstance(error, Refusal)


def _claimed_header(append: _Append) -> BatchHeader:
    """Return what an append says of itself before anyone has looked."""
    if not append.HasField("batch"):
        return BatchHeader(len(append.records), 0)
    batch = append.batch
    return BatchHeader(
        batch.record_count, 0, batch.producer_id, batch.producer_epoch, batch.base_sequence
    )


def _answers(
    ready: list[Pending[Where, Appended]], names_leader: Callable[[Where, LeaderHint], bool]
) -> bytes:
    """Return the message that answers these appends, runs of plain successes together.

    An append that was passed on is such a success, too, unless its answer is the first to name the leader.
    """
    acks = producer_pb2.ProduceAcks()
    run: producer_pb2.AckedTags | None = None
    next_tag = -1
    for pending in ready:
        offset = _plain_offset(pending, names_leader)
        if offset is None:
            run = None
            tagged = acks.results.add(tag=pending.tag)
            for part in pending.parts:
                assert part.answer is not None, part
                tell(tagged.results.add(), part.lane, part.answer)
            continue
        if run is None or pending.tag != next_tag:
            run = acks.acked.add(first_tag=pending.tag)
        run.base_offsets.append(offset)
        next_tag = pending.tag + 1
    return producer_pb2.ProduceStreamResponse(acks=acks).SerializeToString()


def _plain_offset(
    pending: Pending[Where, Appended], names_leader: Callable[[Where, LeaderHint], bool]
) -> int | None:
    """Return the offset of an append that simply went well, which is nearly every one."""
    if len(pending.parts) != 1:
        return None
    [part] = pending.parts
    appended = part.answer
    assert appended is not None, pending
    if appended.error or appended.duplicate:
        return None
    if appended.leader is not None and names_leader(part.lane, appended.leader):
        return None
    return appended.base_offset


def _going_away() -> bytes:
    return producer_pb2.ProduceStreamResponse(
        going_away=producer_pb2.GoingAway(
            reconnect_after=Duration(seconds=_RECONNECT_AFTER_S),
            reason="the broker is shutting down; everything sent before was answered",
        )
    ).SerializeToString()
