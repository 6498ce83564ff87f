"""The leader's end of replication streams: each follower's messages in, and what it is fed out."""

from __future__ import annotations

from typing import Final

import grpc

from riverrun_server.core.replication.messages import Envelope
from riverrun_server.peer import greeting
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.mailbox import Mailbox
from riverrun_server.peer.messages import from_follower, to_follower
from riverrun_server.peer.v1.replication_pb2 import PeerHello, ReplicateRequest, ReplicateResponse
from riverrun_server.ports.peers import PeerEvents

SERVICE: Final = "riverrun_server.peer.v1.ReplicationService"


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
        self._processes = greeting.Processes()

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
        hello = (await greeting.first_of(context, ReplicateRequest)).hello
        await self._processes.admit(context, self._myself, hello)
        await context.write(ReplicateResponse(hello=self._myself.hello()))
        broker = hello.broker_id
        older = self._mailboxes.get(broker)
        if older is not None:
            self._ended(broker, older)
        mailbox = self._mailboxes[broker] = Mailbox()
        try:
            read, write = self._read(context, hello, mailbox), _write(context, mailbox)
            await greeting.serve(context, broker, read, write)
            given_up = mailbox.is_closed
        finally:
            self._ended(broker, mailbox)
        if given_up:
            await context.abort(grpc.StatusCode.UNAVAILABLE, greeting.GIVEN_UP)

    async def _read(self, context: Context, hello: PeerHello, mailbox: Mailbox) -> None:
        """Hand over what a follower says until it ends the stream.

        Raises:
            InvalidMessage
        """
        while (request := await greeting.read(context, ReplicateRequest)) is not None:
            if mailbox.is_closed:
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
