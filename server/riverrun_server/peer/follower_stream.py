"""The follower's end of a replication stream: to one broker that leads what is followed here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import grpc
import grpc.aio
import structlog

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.replication.messages import Envelope
from riverrun_server.peer.both_ways import both_ways
from riverrun_server.peer.channel import peer_channel
from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.mailbox import Mailbox
from riverrun_server.peer.messages import InvalidMessage, from_leader, to_leader
from riverrun_server.peer.v1.replication_pb2 import PeerHello, ReplicateRequest, ReplicateResponse
from riverrun_server.peer.v1.replication_pb2_grpc import ReplicationServiceStub
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.peers import Findings, PeerEvents

Call: TypeAlias = "grpc.aio.StreamStreamCall[ReplicateRequest, ReplicateResponse]"

_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
# What gRPC says of a connection that was refused; a machine that is gone refuses nothing.
_REFUSED: Final = "Connection refused"

_log = structlog.stdlib.get_logger(__name__)


class FollowerStream:
    """A stream to one broker, begun anew whenever it ends.

    Transitions: connecting -> open (both have said who they are) -> connecting, after a pause that
    grows while nothing works.

    Args:
        broker: which one.
        address: where it listens for peers.
        myself: introduces this broker.
        events: told what the leader says, and when a stream is new.
        dice: spreads pauses.
        findings: told that the broker refuses connections, or takes one; None is nobody.
        pause: waits, in seconds.

    Attributes:
        mailbox: what is sent on the stream; None while it is not open.
    """

    def __init__(
        self,
        broker: int,
        address: str,
        myself: Myself,
        events: PeerEvents,
        dice: Dice,
        findings: Findings | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.broker = broker
        self.address = address
        self.mailbox: Mailbox | None = None
        self._myself = myself
        self._events = events
        self._backoff = Backoff(dice.uniform, _RETRY_S, _RETRY_MAX_S)
        self._findings = findings
        self._pause = pause
        self._said = ""
        # The process that had this address, once it has introduced itself.
        self._epoch: int | None = None

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        async with peer_channel(self.address) as channel:
            while True:
                try:
                    await self._once(ReplicationServiceStub(channel).Replicate())
                    why = "it was ended"
                except (WrongPeer, InvalidMessage) as error:
                    why = str(error)
                except grpc.aio.AioRpcError as error:
                    why = f"{error.code().name}: {error.details()}"
                    self._find(error)
                except TimeoutError:
                    why = f"broker {self.broker} did not say who it is within {HELLO_S:g} s"
                self._tell(why)
                await self._pause(self._backoff.next_s())

    async def _once(self, call: Call) -> None:
        """Serve one stream until it ends."""
        try:
            hello = await self._greeted(call)
            self._backoff.reset()
            self._tell("")
            self._epoch = hello.broker_epoch
            if self._findings is not None:
                self._findings.answers(self.broker)
            mailbox = self.mailbox = Mailbox()
            self._events.connected(self.broker)
            try:
                error = await both_ways(self._read(call, hello.broker_epoch), _write(call, mailbox))
                if error is not None:
                    raise error
            finally:
                self.mailbox = None
                mailbox.close()
        finally:
            call.cancel()

    async def _read(self, call: Call, leader_epoch: int) -> None:
        """Hand over what the leader says until it ends the stream.

        Raises:
            InvalidMessage
            grpc.aio.AioRpcError: it ended otherwise.
        """
        async for response in _responses(call):
            said = tuple(from_leader(response))
            if said:
                me = self._myself.broker_id
                self._events.receive(Envelope(self.broker, leader_epoch, me, said))

    async def _greeted(self, call: Call) -> PeerHello:
        async with asyncio.timeout(HELLO_S):
            await call.write(ReplicateRequest(hello=self._myself.hello()))
            async for response in _responses(call):
                self._myself.check(response.hello, self.broker)
                return response.hello
        raise WrongPeer(f"whoever listens on {self.address} ended the stream without a word")

    def _find(self, error: grpc.aio.AioRpcError) -> None:
        """Pass on that nobody listens any more where a process did: its machine says so, so it is gone."""
        refused = _REFUSED in (error.details() or "")
        if refused and self._epoch is not None and self._findings is not None:
            self._findings.refuses(self.broker, self._epoch)

    def _tell(self, why: str) -> None:
        """Log why there is no stream, once for each reason."""
        if why == self._said:
            return
        self._said = why
        if why:
            _log.warning("a leader cannot be followed", broker=self.broker, why=why)
        else:
            _log.info("a leader is followed", broker=self.broker, address=self.address)


async def _responses(call: Call) -> AsyncIterator[ReplicateResponse]:
    """Yield what comes, until the other side ends the stream.

    Raises:
        grpc.aio.AioRpcError: it ended otherwise.
    """
    while True:
        response: object = await call.read()
        if not isinstance(response, ReplicateResponse):
            return
        yield response


async def _write(call: Call, mailbox: Mailbox) -> None:
    """Send what comes; ends with the stream, or where more waits than may."""
    # A stream that has ended takes nothing more; whoever reads is told why.
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while messages := await mailbox.take():
            await call.write(to_leader(messages))
