"""The one door that every call of every listener passes, once, on its way to its handler.

It tells who calls, refuses what is over a cap or comes while the broker drains, counts and times,
and answers for exceptions. It reads the request of a call that has one, so that a caller is known, and may be
refused, before memory is spent on what it sends. Messages of a stream do not pass through it: a
handler reads its requests from gRPC directly, and writes as it would without.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.admission import Admission
from riverrun_server.rpc.call_log import name_of
from riverrun_server.rpc.caller import ANONYMOUS, CALLER, Caller
from riverrun_server.rpc.errors import Edge, answer_for
from riverrun_server.rpc.receiving import checked
from riverrun_server.runtime.delivery_room import CURRENT, Room

# gRPC does not tell the types of messages to a generic handler.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[Any, Context], Any]

METADATA_BYTES_MAX: Final = 16 << 10
"""Of one call's headers: its method, its deadline, a token."""

# These tell that a broker is draining, so they are answered while it is.
_ALWAYS: Final = ("/grpc.health.v1.", "/grpc.reflection.")
_CANCELLED: Final = grpc.StatusCode.CANCELLED
# Set for a call that has too much of it. gRPC makes a call's metadata anew for each look at it, and
# shows it without one when it asks for the handler.
_METADATA_BYTES: Final[ContextVar[int]] = ContextVar("riverrun_metadata_bytes", default=0)


class Door(grpc.GenericRpcHandler):
    """All handlers of one listener, each method's wrapped once.

    To gRPC it is the only handler of a server, and to what generated code adds, it is the server. An
    interceptor would do the same for a tenth more of what gRPC takes for a small call.
    """

    def __init__(self, admission: Admission, listener: str) -> None:
        self._admission = admission
        self._listener = listener
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve these too."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Do nothing: they are among the generic ones.

        With each call, gRPC begins anew to wait for the next call of each registered method.
        """

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """Return a method's wrapped handler; None, as gRPC does, for a method that is not there."""
        size = sum([len(key) + len(value) for key, value in details.invocation_metadata])
        if size > METADATA_BYTES_MAX:
            _METADATA_BYTES.set(size)  # each call runs in a task, and so in a context, of its own
        method = details.method
        return self._wrapped.get(method) or self._found(method, details)

    def _found(self, method: str, details: grpc.HandlerCallDetails) -> Handler | None:
        for each in self._handlers:
            handler = each.service(details)
            if handler is not None:
                return self._wrapped.setdefault(method, self._wrap(method, handler))
        return None

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # The type stubs know these as handlers of the blocking server. To gRPC every request is a
        # stream: so it is the door that reads it, and says why where it cannot.
        kinds: list[tuple[Any, Callable[..., Handler], Callable[..., Any]]] = [
            (handler.unary_unary, grpc.stream_unary_rpc_method_handler, self._unary),
            (handler.unary_stream, grpc.stream_stream_rpc_method_handler, self._streaming),
            (handler.stream_stream, grpc.stream_stream_rpc_method_handler, self._streaming),
        ]
        inner, make, wrap = next(kind for kind in kinds if kind[0] is not None)
        assert handler.request_deserializer is not None, method
        parse = checked(method, handler.request_deserializer)
        handle = wrap(method, inner, handler.request_streaming)
        if (calls := self._admission.calls) is not None:
            streams = bool(handler.request_streaming or handler.response_streaming)
            handle = calls.around(self._listener, method[1:], handle, streams=streams)
        return make(
            handle,
            request_deserializer=parse,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, inner: Unary, *_: object) -> Any:
        name, admission = method[1:], self._admission
        observe = admission.metrics.call_seconds.labels(name).observe
        always = method.startswith(_ALWAYS)
        count = self._counter(name)

        # Written out: this is the path of every small call, and with a context manager for each of
        # these steps it cost as much as all the rest that the broker does for one record.
        async def handle(_: object, context: Context) -> Any:
            code = _CANCELLED
            request: Any = None
            try:
                caller = self._caller(context)
                if not always:
                    admission.check_serving()
                admission.begin_call(always=always)
                room = Room(admission.deliveries, caller.peer)
                task = _task()

                def ended(_: Any) -> None:
                    admission.end_call(always=always)
                    room.close()

                # The answer of somebody who does not read it holds its place, and its memory, too: the
                # task ends when it has been sent. A callback of the context would do, but makes a
                # circle of it and itself, and so work for the collector with each small call.
                task.add_done_callback(ended)
                CURRENT.set(room)
                request = await admission.receiving.request(context, task)
                call_notes.current().request = request
                began = perf_counter()
                try:
                    reply = await inner(request, context)
                finally:
                    if not always:
                        observe(perf_counter() - began)
                code = context.code()
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except Exception as error:  # noqa: BLE001 - the edge: what comes here is answered for
                # gRPC keeps an abort's frames, in a circle, until the collector looks.
                request = None
                try:
                    await answer_for(context, name, error)
                finally:
                    code = context.code()
            finally:
                count(code)
            return reply

        return handle

    def _streaming(self, method: str, inner: Streaming, reads: bool) -> Any:
        name, admission = method[1:], self._admission
        always = method.startswith(_ALWAYS)
        assert inspect.isasyncgenfunction(inner) or inspect.iscoroutinefunction(inner), method
        yields = inspect.isasyncgenfunction(inner)
        open_streams = admission.metrics.streams.labels(self._listener, name)
        count = self._counter(name)

        async def handle(messages: object, context: Context) -> None:
            async with _counted(count, context), Edge(context, name):
                if not always:
                    admission.check_serving()
                caller = self._caller(context)
                with admission.stream(caller), open_streams.track_inprogress():
                    CURRENT.set(Room(admission.deliveries, caller.peer))
                    request = messages
                    if not reads:
                        request = await admission.receiving.request(context, _task())
                        call_notes.current().request = request
                    if yields:
                        # What gRPC itself would do with a generator; it is not done twice.
                        async with contextlib.aclosing(inner(request, context)) as answers:
                            async for answer in answers:
                                await context.write(answer)
                    else:
                        await inner(request, context)

        return handle

    def _caller(self, context: Context) -> Caller:
        """Say who calls, to this call and to everything that it awaits.

        Raises:
            Refusal: LIMIT_EXCEEDED for metadata that gRPC should have refused.
        """
        # It does so only once the client has acknowledged its settings, and up to 16 MiB before.
        size = _METADATA_BYTES.get()
        if size:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the call's metadata has {size} bytes and {METADATA_BYTES_MAX} are allowed; send "
                "data in the request",
            )
        # The name of one connection, its port included: listeners are TCP (see listener.Address).
        caller = Caller(ANONYMOUS, self._listener, context.peer())
        CALLER.set(caller)
        return caller

    def _counter(self, name: str) -> Callable[[Any], None]:
        """Return what counts a call of a method under the code that it ends with."""
        calls, listener = self._admission.metrics.calls, self._listener
        increments: dict[Any, Callable[[], None]] = {}

        def count(code: Any) -> None:
            increment = increments.get(code)
            if increment is None:
                increment = increments[code] = calls.labels(listener, name, name_of(code)).inc
            increment()

        return count


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "gRPC runs each call in a task"
    return task


@contextlib.asynccontextmanager
async def _counted(count: Callable[[Any], None], context: Context) -> AsyncIterator[None]:
    """Count a stream under the code that it ends with."""
    code: Any = _CANCELLED
    try:
        yield
        code = context.code()
    except grpc.aio.AbortError:
        code = context.code()
        raise
    finally:
        count(code)
