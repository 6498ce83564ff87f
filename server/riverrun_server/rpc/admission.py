"""Lets calls in: the one interceptor that every call of every listener passes, once.

It tells who calls, refuses what is over a cap or comes while the broker drains, counts and times,
and answers for exceptions. It reads the request of a call that has one, so that a caller is known, and may be
refused, before memory is spent on what it sends. Messages of a stream do not pass through it: a
handler reads its requests from gRPC directly, and writes as it would without.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.call_log import CallLog, name_of
from riverrun_server.rpc.caller import ANONYMOUS, CALLER, Caller
from riverrun_server.rpc.errors import Edge, answer_for
from riverrun_server.rpc.receiving import Receiving, checked
from riverrun_server.runtime.delivery_room import CURRENT, Deliveries, Room

# gRPC does not tell the types of messages to an interceptor.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[Any, Context], Any]

METADATA_BYTES_MAX: Final = 16 << 10
"""Of one call's headers: its method, its deadline, a token."""

# These tell that a broker is draining, so they are answered while it is.
_ALWAYS: Final = ("/grpc.health.v1.", "/grpc.reflection.")
_CANCELLED: Final = grpc.StatusCode.CANCELLED


@dataclass(frozen=True, slots=True)
class Caps:
    """How many calls there may be at once.

    Attributes:
        streams_per_connection: open streams of one connection.
        streams_per_principal: open streams of one principal on this broker.
        calls: unary calls under way on this broker, from their first byte to the last of their
            answer.
        slow_requests: calls whose request takes its time to arrive.
        delivery_bytes: on their way to readers, of all connections together.
    """

    streams_per_connection: int
    streams_per_principal: int
    calls: int
    slow_requests: int = 64
    delivery_bytes: int = 256 << 20


class Admission:
    """What all listeners of a broker share: the counts behind the caps, and whether it drains."""

    def __init__(self, caps: Caps, metrics: Metrics, calls: CallLog | None = None) -> None:
        self.metrics = metrics
        self.calls = calls
        self.deliveries = Deliveries(
            DeliveryBudget(caps.delivery_bytes),
            metrics.limit_reached.labels("max_delivery_bytes").inc,
        )
        self._caps = caps
        self.receiving = Receiving(caps.slow_requests, self._reached)
        self._calls: dict[bool, int] = {False: 0, True: 0}
        self._by_connection: Counter[str] = Counter()
        self._by_principal: Counter[str] = Counter()
        self._draining = False

    def drain(self) -> None:
        """Refuse every new call from now on; those under way go on."""
        self._draining = True

    def check_serving(self) -> None:
        """Refuse while the broker drains.

        Raises:
            Refusal: SHUTTING_DOWN.
        """
        if self._draining:
            raise Refusal(
                Reason.SHUTTING_DOWN,
                "the broker is shutting down and took nothing; ask another one, or this one a "
                "little later",
            )

    @property
    def connections_with_streams(self) -> int:
        """How many connections hold streams open."""
        return len(self._by_connection)

    def begin_call(self, *, always: bool) -> None:
        """Take one place among the unary calls; `end_call` gives it back.

        Two functions and no context manager: that would cost a tenth of a small call.

        Probes have places of their own, as many: they must tell of a broker that is busy.

        Raises:
            Refusal: OVERLOADED; no place was taken.
        """
        calls = self._calls[always]
        if calls >= self._caps.calls:
            raise self._reached(
                "max_calls",
                Reason.OVERLOADED,
                f"{calls} calls are under way and limits.max_calls is {self._caps.calls}; "
                "send again after a moment",
            )
        self._calls[always] = calls + 1

    def end_call(self, *, always: bool) -> None:
        """Give a place among the unary calls back."""
        self._calls[always] -= 1

    @contextlib.contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Hold one place among the caller's streams.

        Raises:
            Refusal: LIMIT_EXCEEDED.
        """
        self._check_streams(
            "max_streams_per_connection",
            "this connection",
            self._by_connection[caller.peer],
            self._caps.streams_per_connection,
        )
        self._check_streams(
            "max_streams_per_principal",
            f"principal {caller.principal!r}",
            self._by_principal[caller.principal],
            self._caps.streams_per_principal,
        )
        with _held(self._by_connection, caller.peer), _held(self._by_principal, caller.principal):
            yield

    def _check_streams(self, limit: str, whose: str, held: int, allowed: int) -> None:
        if held >= allowed:
            raise self._reached(
                limit,
                Reason.LIMIT_EXCEEDED,
                f"{whose} holds {held} streams open and limits.{limit} is {allowed}; close some, "
                "or share one stream among several topics",
            )

    def _reached(self, limit: str, reason: Reason, message: str) -> Refusal:
        self.metrics.limit_reached.labels(limit).inc()
        return Refusal(reason, message)


@contextlib.contextmanager
def _held(counts: Counter[str], key: str) -> Iterator[None]:
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]  # connections come and go for ever


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of one listener, each method's once."""

    def __init__(self, admission: Admission, listener: str) -> None:
        self._admission = admission
        self._listener = listener
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's wrapped handler; None, as gRPC does, for a method that is not there."""
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # The type stubs know these as handlers of the blocking server. To gRPC every request is a
        # stream: so it is this interceptor that reads it, and says why where it cannot.
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

                def ended(_: Any) -> None:
                    admission.end_call(always=always)
                    room.close()

                # The answer of somebody who does not read it holds its place, and its memory, too: the
                # task ends when it has been sent. A callback of the context would do, but makes a
                # circle of it and itself, and so work for the collector with each small call.
                _task().add_done_callback(ended)
                CURRENT.set(room)
                request = await admission.receiving.request(context)
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
                    request = messages if reads else await admission.receiving.request(context)
                    if not reads:
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
        size = sum([len(key) + len(value) for key, value in context.invocation_metadata() or ()])
        if size > METADATA_BYTES_MAX:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the call's metadata has {size} bytes and {METADATA_BYTES_MAX} are allowed; send "
                "data in the request",
            )
        # The name of one connection, its port included: listeners are TCP (see listener.Address).
        caller = Caller(ANONYMOUS, self._listener, context.peer())
        CALLER.set(caller)  # each call runs in a task, and so in a context, of its own
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
