"""The leader's end of replication streams: each follower's messages in, and what it is fed out."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog

from riverrun_server.core.replication.messages import Envelope
from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.mailbox import Mailbox
from riverrun_server.peer.messages import InvalidMessage, from_follower, to_follower
from riverrun_server.peer.v1.replication_pb2 import PeerHello, ReplicateRequest, ReplicateResponse
from riverrun_server.ports.peers import PeerEvents

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SERVICE: Final = "riverrun_server.peer.v1.ReplicationService"

_log = structlog.stdlib.get_logger(__name__)


class ReplicationService:
    """Serves riverrun_server.peer.v1.ReplicationService.

    Transitions of one follower's stream: greeting -> open -> ended; a newer stream of the same process
    of a broker, or one of a later process, ends the older one first.

    Args:
        myself: introduces this broker.
        events: told what followers say.
    """

    def __init__(self, myself: Myself, events: PeerEvents) -> None:
        self._myself = myself
        self._events = events
        self._mailboxes: dict[int, Mailbox] = {}
        self._epochs: dict[int, int] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        replicate = grpc.stream_stream_rpc_method_handler(
            self.replicate,
            ReplicateRequest.FromString,
            ReplicateResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Replicate": replicate})

    def mailbox(self, broker: int) -> Mailbox | None:
        """Return what is sent to a broker that follows here; None where none does."""
        return self._mailboxes.get(broker)

    def close(self) -> None:
        """End all streams."""
        for broker, mailbox in [*self._mailboxes.items()]:
            self._ended(broker, mailbox)

    async def replicate(self, _: object, context: Context) -> None:
        """Feed one follower until either side ends the stream."""
        hello = await self._greeted(context)
        broker = hello.broker_id
        self._epochs[broker] = hello.broker_epoch
        older = self._mailboxes.get(broker)
        if older is not None:
            self._ended(broker, older)
        mailbox = self._mailboxes[broker] = Mailbox()
        reading = asyncio.create_task(self._read(context, hello, mailbox))
        writing = asyncio.create_task(_write(context, mailbox))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            given_up = mailbox.is_closed
            if reading.done():
                reading.result()
        except InvalidMessage as invalid:
            _log.warning("a follower said what no version says", broker=broker, why=str(invalid))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(invalid))
        finally:
            self._ended(broker, mailbox)
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        if given_up:
            text = "the stream was given up for a newer one; begin another"
            await context.abort(grpc.StatusCode.UNAVAILABLE, text)

    async def _greeted(self, context: Context) -> PeerHello:
        """Exchange introductions; a stranger's call ends here."""
        first: object = None
        try:
            async with asyncio.timeout(HELLO_S):
                first = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the stream began with nothing")
        if not isinstance(first, ReplicateRequest):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream began with its end")
        assert isinstance(first, ReplicateRequest), "abort raises"
        try:
            self._myself.check(first.hello)
            self._check_newest(first.hello)
        except WrongPeer as wrong:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(wrong))
        await context.write(ReplicateResponse(hello=self._myself.hello()))
        return first.hello

    def _check_newest(self, hello: PeerHello) -> None:
        """Refuse a process that a later one of its broker has followed: it does not know yet that it is over.

        Raises:
            WrongPeer
        """
        newest = self._epochs.get(hello.broker_id, 0)
        if hello.broker_epoch < newest:
            raise WrongPeer(
                f"broker {hello.broker_id} follows here as process {newest}, and this is process "
                f"{hello.broker_epoch}, an earlier one: it has been replaced"
            )

    async def _read(self, context: Context, hello: PeerHello, mailbox: Mailbox) -> None:
        """Hand over what a follower says until it ends the stream.

        Raises:
            InvalidMessage
        """
        while True:
            request: object = await context.read()
            if mailbox.is_closed or not isinstance(request, ReplicateRequest):
                return
            said = tuple(from_follower(request))
            if said:
                me = self._myself.broker_id
                self._events.receive(Envelope(hello.broker_id, hello.broker_epoch, me, said))

    def _ended(self, broker: int, mailbox: Mailbox) -> None:
        mailbox.close()
        if self._mailboxes.get(broker) is mailbox:
            del self._mailboxes[broker]
            self._events.disconnected(broker)


async def _write(context: Context, mailbox: Mailbox) -> None:
    while messages := await mailbox.take():
        await context.write(to_follower(messages))
