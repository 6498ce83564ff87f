"""A gateway's stream to one leader: begun when it is first needed, and anew when it is needed again."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from riverrun_server.core.backoff import Backoff
from riverrun_server.peer.both_ways import both_ways
from riverrun_server.peer.channel import peer_channel
from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.outgoing import OVERHEAD_BYTES, WAITING_BYTES_MAX, Outgoing
from riverrun_server.peer.v1.replication_pb2 import PeerHello
from riverrun_server.ports.clock import Dice

_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


class Greeting(Protocol):
    """A message in which the other side may say who it is."""

    @property
    def hello(self) -> PeerHello:
        """Who it is."""
        ...


Said = TypeVar("Said", bound=Message)
Heard = TypeVar("Heard", bound=Greeting)


class LeaderStream(ABC, Generic[Said, Heard]):
    """What the streams of a gateway have in common.

    Transitions: idle -> connecting (`need`) -> open (both have said who they are) -> idle, after a
    pause that grows while nothing works. Nothing is begun anew by itself: who needs it says so.

    Args:
        broker: to which one.
        address: where it listens for peers.
        myself: introduces this broker.
        dice: spreads pauses.
        pause: waits, in seconds.
        mailbox_bytes: how much may wait to be sent.
    """

    def __init__(
        self,
        broker: int,
        address: str,
        myself: Myself,
        dice: Dice,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        mailbox_bytes: int = WAITING_BYTES_MAX,
    ) -> None:
        self.broker = broker
        self.address = address
        self._mailbox: Outgoing[Said] | None = None
        self._mailbox_bytes = mailbox_bytes
        self._myself = myself
        self._backoff = Backoff(dice.uniform, _RETRY_S, _RETRY_MAX_S)
        self._pause = pause
        self._needed = asyncio.Event()
        self._told = ""

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._mailbox is not None

    def need(self) -> None:
        """Have the stream opened, if it is not."""
        self._needed.set()

    async def run(self) -> None:
        """Keep the stream open while it is needed, until cancelled."""
        async with peer_channel(self.address) as channel:
            try:
                while True:
                    await self._needed.wait()
                    why = await self._once(self._begin(channel))
                    self._tell(why)
                    # Whoever needs it again while it is told that it has ended is heard.
                    self._needed.clear()
                    self._ended(why)
                    await self._pause(self._backoff.next_s())
            finally:
                self._ended("this broker ends, or the other one has moved")

    async def _once(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> str:
        """Serve one stream; return why it has ended."""
        try:
            await self._greet(call)
            self._backoff.reset()
            self._tell("")
            mailbox = self._mailbox = Outgoing(_message_bytes, self._mailbox_bytes)
            try:
                self._opened()
                error = await both_ways(self._read(call), self._write(call, mailbox))
                if mailbox.is_closed:
                    return "more waited to be sent than may"
                if error is not None:
                    raise error
            finally:
                self._mailbox = None
                mailbox.close()
        except (WrongPeer, InvalidMessage) as error:
            return str(error)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except TimeoutError:
            return f"broker {self.broker} did not say who it is within {HELLO_S:g} s"
        finally:
            call.cancel()
        return "it was ended"

    async def _greet(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        async with asyncio.timeout(HELLO_S):
            await call.write(self._hello())
            heard = await _read(call)
        if heard is None:
            raise WrongPeer(f"whoever listens on {self.address} ended the stream without a word")
        self._myself.check(heard.hello, self.broker)

    async def _read(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        while (heard := await _read(call)) is not None:
            self._heard(heard)

    async def _write(
        self, call: grpc.aio.StreamStreamCall[Any, Any], mailbox: Outgoing[Said]
    ) -> None:
        # A stream that has ended takes nothing more; whoever reads is told why.
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while messages := await mailbox.take():
                await call.write(self._frame(messages))

    def _tell(self, why: str) -> None:
        """Log why there is no stream, once for each reason."""
        if why == self._told:
            return
        self._told = why
        if why:
            _log.warning("a leader cannot be asked", what=self.what, broker=self.broker, why=why)
        else:
            _log.info("a leader can be asked", what=self.what, broker=self.broker)

    # What the streams differ in.

    what: str

    @abstractmethod
    def _begin(self, channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[Any, Any]:
        """Begin a call."""

    @abstractmethod
    def _hello(self) -> Message:
        """Return the message that introduces this broker."""

    @abstractmethod
    def _frame(self, messages: list[Said]) -> Message:
        """Return one message of many; it is about to be sent."""

    @abstractmethod
    def _opened(self) -> None:
        """Learn that the stream is open."""

    @abstractmethod
    def _heard(self, heard: Heard) -> None:
        """Take what the leader says.

        Raises:
            InvalidMessage: the stream cannot go on.
        """

    @abstractmethod
    def _ended(self, why: str) -> None:
        """Learn that the stream has ended, or did not open; also where this is known already."""


def _message_bytes(message: Message) -> int:
    return OVERHEAD_BYTES + message.ByteSize()


async def _read(call: grpc.aio.StreamStreamCall[Any, Any]) -> Any:
    """Return the next message, or None behind the last one.

    Raises:
        grpc.aio.AioRpcError: the stream has ended otherwise.
    """
    heard = await call.read()
    return heard if isinstance(heard, Message) else None
