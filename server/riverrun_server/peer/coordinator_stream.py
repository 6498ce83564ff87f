"""A gateway's end of the stream to one coordinator: begun when something is asked, and anew after it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio
import structlog

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.search import InDoubt
from riverrun_server.peer.channel import peer_channel
from riverrun_server.peer.coordination_messages import refusal_from_wire
from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.v1.coordination_pb2 import (
    CoordinateRequest,
    CoordinateResponse,
    CoordinatorAnswer,
    CoordinatorCall,
)
from riverrun_server.peer.v1.coordination_pb2_grpc import CoordinationServiceStub

Call: TypeAlias = "grpc.aio.StreamStreamCall[CoordinateRequest, CoordinateResponse]"
Parts: TypeAlias = list[CoordinatorAnswer]

UNANSWERED_MAX: Final = 2000
"""Calls to one coordinator that may wait for an answer."""

SENT_MAX: Final = 800
"""Of these, calls that may have been sent: fewer than a coordinator takes on, so that it always reads beats."""

_CALL_BYTES_MAX: Final = 3_500_000
_WAITING_BYTES_MAX: Final = 16 << 20
_RECONNECT_MAX_S: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


class OpenCall(Protocol):
    """Whoever made a call that stays open behind its answer."""

    def told(self, answer: CoordinatorAnswer) -> None:
        """Hear what comes behind the answer; a refusal is the last."""
        ...

    def given_up(self, answer: CoordinatorAnswer) -> None:
        """Hear the answer that nobody waits for any more; the call is not open."""
        ...

    def lost(self, why: Refusal) -> None:
        """Hear that the stream between the brokers has ended, and the call with it."""
        ...


@dataclass(slots=True, eq=False)
class _Asked:
    """A call and what has come of it.

    Attributes:
        call: what is asked.
        size_bytes: of it.
        done: has all parts of the answer.
        parts: those that have come.
        opened: hears what comes behind the answer, where the call stays open.
    """

    call: CoordinatorCall
    size_bytes: int
    done: asyncio.Future[Parts]
    opened: OpenCall | None = None
    parts: Parts = field(default_factory=list)

    def fail(self, refusal: Refusal) -> None:
        if not self.done.done():
            self.done.set_exception(refusal)
            # Its caller may be gone; nobody else has to hear of it.
            self.done.exception()


class CoordinatorStream:
    """The calls to one broker.

    Transitions: idle -> connecting (`ask`) -> open (both have said who they are) -> idle. What was not
    sent when it ends was not asked; of what was sent and not answered nobody knows. None of it is sent
    again on the next stream.

    Args:
        broker: which one.
        address: where it listens for peers.
        myself: introduces this broker.
    """

    def __init__(self, broker: int, address: str, myself: Myself) -> None:
        self.broker = broker
        self.address = address
        self._myself = myself
        self._channel = peer_channel(address, _RECONNECT_MAX_S)
        self._waiting: deque[_Asked] = deque()
        self._waiting_bytes = 0
        # They go before all others: members' leases rest on them, and on no turn of the coordinator's.
        self._beats: deque[_Asked] = deque()
        self._sent: dict[int, _Asked] = {}
        self._open: dict[int, OpenCall] = {}
        self._last_id = 0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._said = ""

    def ask(
        self, call: CoordinatorCall, within_s: float, opened: OpenCall | None = None
    ) -> asyncio.Future[Parts]:
        """Ask behind everything that was asked before, beats apart; the future has the parts of the answer.

        Args:
            call: without id and time.
            within_s: how long its caller waits.
            opened: hears what comes behind the answer, where the call stays open.

        Raises:
            Refusal: OVERLOADED, LIMIT_EXCEEDED, NOT_READY; the future has InDoubt, NOT_READY, or what the
                coordinator says.
        """
        self._last_id += 1
        call.call_id = self._last_id
        call.expires_at_ms = self._myself.now_ms() + round(within_s * 1000)
        size = call.ByteSize()
        is_beat = call.HasField("beat")
        self._check(size, is_beat=is_beat)
        asked = _Asked(call, size, asyncio.get_running_loop().create_future(), opened)
        (self._beats if is_beat else self._waiting).append(asked)
        self._waiting_bytes += size
        self._woken.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"coordinator {self.broker}")
            self._task.add_done_callback(self._looked_after)
        return asked.done

    def close_call(self, opened: OpenCall) -> None:
        """Hear nothing more of an open call."""
        for call_id in [each for each, other in self._open.items() if other is opened]:
            del self._open[call_id]

    async def close(self) -> None:
        """End the stream; everything that was asked is answered."""
        self._is_closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._fail("this broker is shutting down, or the other one has moved")
        await self._channel.close()

    def _check(self, size: int, *, is_beat: bool) -> None:
        if self._is_closed:
            raise self._not_reached("it is no longer there")
        if size > _CALL_BYTES_MAX:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the offsets of this commit take {size} bytes and {_CALL_BYTES_MAX} are allowed; "
                "split it, or use shorter metadata",
            )
        unanswered = len(self._waiting) + len(self._sent)
        is_full = unanswered >= UNANSWERED_MAX or self._waiting_bytes + size > _WAITING_BYTES_MAX
        if is_full and not is_beat:
            raise Refusal(
                Reason.OVERLOADED,
                f"{unanswered} calls to broker {self.broker}, which coordinates the group, wait for an "
                "answer and no more may; ask again after a moment",
            )

    # One stream.

    async def _run(self) -> None:
        call = CoordinationServiceStub(self._channel).Coordinate()
        try:
            await self._greet(call)
            self._tell("")
            writing = asyncio.create_task(self._write(call), name=f"calls to {self.broker}")
            try:
                while (response := await _read(call)) is not None:
                    self._answered(response.answer)
            finally:
                writing.cancel()
                # Suppressing its cancellation would suppress one of this task, too.
                await asyncio.gather(writing, return_exceptions=True)
            why = "the stream was ended"
        except WrongPeer as error:
            why = str(error)
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
        except TimeoutError:
            why = f"it did not say who it is within {HELLO_S:g} s"
        finally:
            call.cancel()
            # Whoever asks from here on begins another stream.
            self._task = None
        self._tell(why)
        self._fail(why)

    async def _greet(self, call: Call) -> None:
        async with asyncio.timeout(HELLO_S):
            await call.write(CoordinateRequest(hello=self._myself.hello()))
            response = await _read(call)
        if response is None:
            raise WrongPeer(f"whoever listens on {self.address} ended the stream without a word")
        self._myself.check(response.hello, self.broker)

    async def _write(self, call: Call) -> None:
        while True:
            while (asked := self._next()) is None:
                self._woken.clear()
                await self._woken.wait()
            self._waiting_bytes -= asked.size_bytes
            if asked.done.done():
                continue  # its caller is gone
            self._sent[asked.call.call_id] = asked
            await call.write(CoordinateRequest(call=asked.call))

    def _next(self) -> _Asked | None:
        """Return what is to be sent now."""
        if self._beats:
            return self._beats.popleft()
        if self._waiting and len(self._sent) < SENT_MAX:
            return self._waiting.popleft()
        return None

    def _answered(self, answer: CoordinatorAnswer) -> None:
        asked = self._sent.get(answer.call_id)
        if asked is None:
            self._told(answer)
            return
        asked.parts.append(answer)
        if answer.told.more or answer.described.more:
            return
        del self._sent[answer.call_id]
        self._woken.set()
        if answer.HasField("refused"):
            asked.fail(refusal_from_wire(answer.refused))
        elif not asked.done.done():
            asked.done.set_result(asked.parts)
            if asked.opened is not None:
                self._open[answer.call_id] = asked.opened
        elif asked.opened is not None:
            asked.opened.given_up(answer)

    def _told(self, answer: CoordinatorAnswer) -> None:
        """Pass on what comes of an open call."""
        opened = self._open.get(answer.call_id)
        if opened is None:
            return
        if answer.HasField("refused"):
            del self._open[answer.call_id]
        opened.told(answer)

    # Its end.

    def _looked_after(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            _log.error("a stream to a coordinator failed", broker=self.broker, exc_info=bug)
            self._fail("the stream to it failed; the log of this broker says why")

    def _fail(self, why: str) -> None:
        waiting = [*self._beats, *self._waiting]
        self._beats, self._waiting, self._waiting_bytes = deque(), deque(), 0
        sent, self._sent = self._sent, {}
        opened, self._open = self._open, {}
        for asked in sent.values():
            asked.fail(self._in_doubt(why))
        for each in opened.values():
            each.lost(self._in_doubt(why))
        for asked in waiting:
            asked.fail(self._not_reached(why))

    def _in_doubt(self, why: str) -> Refusal:
        return InDoubt(
            Reason.REQUEST_TIMED_OUT,
            f"the stream to broker {self.broker}, which coordinates the group, ended before it "
            f"answered ({why}); ask FetchOffsets, or commit again",
        )

    def _not_reached(self, why: str) -> Refusal:
        return Refusal(
            Reason.NOT_READY,
            f"broker {self.broker}, which coordinates the group, was not reached ({why}); nothing "
            "happened, ask again",
        )

    def _tell(self, why: str) -> None:
        """Log why nothing can be asked, once for each reason."""
        if why == self._said:
            return
        self._said = why
        if why:
            _log.warning("a coordinator cannot be asked", broker=self.broker, why=why)
        else:
            _log.info("a coordinator is asked", broker=self.broker, address=self.address)


async def _read(call: grpc.aio.StreamStreamCall[Any, Any]) -> CoordinateResponse | None:
    """Return what comes next, or None where the other side has ended the stream."""
    response: object = await call.read()
    return response if isinstance(response, CoordinateResponse) else None
