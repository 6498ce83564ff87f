"""Each call leaves a line when it ends: what is in it, which are left out, and that nothing can break it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from functools import partial

import grpc
import grpc.aio
import pytest
import structlog

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import consumer_pb2_grpc
from riverrun.v1.admin_pb2 import AddPartitionsRequest
from riverrun.v1.producer_pb2 import PartitionBatch, ProduceRequest, ProduceResponse
from riverrun.v1.records_pb2 import Record, RecordBatch
from riverrun_server.assembly import Shared
from riverrun_server.config.load import load
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe import logs
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.call_log import LINES_PER_S, CallLog, CallLogRules
from riverrun_server.rpc.call_notes import TOPICS_NAMED
from riverrun_server.rpc.call_summary import allowed_wait_s, named_in, records_in, size_of
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.listener import Address, Listener
from riverrun_server.rpc.server import ListenerServer, ServerOptions, Service, ServingStatus

NAME = "riverrun.v1.ConsumerService"
LOOPBACK = Address("127.0.0.1", 0)
OPTIONS = ServerOptions(4 << 20, 4 << 20, 1000, 1000, 30, 10, 5)
HOT = f"{NAME}/Fetch"
RARE = "riverrun.v1.AdminService/CreateTopic"
EVIL = "evil\r\n{}\x1b[2J\u202e"


@pytest.fixture
def lines():
    """What the log says from now on, as JSON, line by line."""
    out = io.StringIO()
    logs.configure("json", stream=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeContext:
    """A call that ends with a code."""

    def __init__(self, code=None, agent="me") -> None:
        self._code = code
        self._agent = agent

    def code(self):
        return self._code

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"

    def invocation_metadata(self):
        return (("x", b"1"), ("user-agent", self._agent))


class Calls:
    """Calls of one method, each as long as it says."""

    def __init__(self, method=HOT, *, streams=False, **rules) -> None:
        self.clock = Clock()
        self.metrics = Metrics(process=False)
        log = CallLog(CallLogRules(**rules), self.metrics, self.clock)
        self._handle = log.around("clients", method, self._serve, streams=streams)
        self._took_s = 0.0
        self._reply = None
        self._note = lambda: None

    async def _serve(self, request, context):
        call_notes.current().request = request
        self.clock.now_s += self._took_s
        self._note()
        if isinstance(self._reply, BaseException):
            raise self._reply
        return self._reply

    async def call(self, request=None, *, took_s=0.0, code=None, reply=None, note=lambda: None):
        self._took_s, self._reply, self._note = took_s, reply, note
        context = FakeContext(code)
        return await asyncio.create_task(self._handle(request, context))


async def test_a_line_has_who_what_how_and_how_long(lines):
    calls = Calls()
    request = c.FetchRequest(group_id="g", positions=[c.StartPosition(topic="t", partition=1)])
    await calls.call(request, took_s=0.0123, reply=b"12345")
    [line] = lines()
    del line["timestamp"]
    assert line == {
        "event": "call ended",
        "level": "info",
        "method": HOT,
        "listener": "clients",
        "peer": "ipv4:127.0.0.1:5",
        "client": "me",
        "code": "OK",
        "duration_ms": 12.3,
        "topics": ["t"],
        "group": "g",
        "request_bytes": request.ByteSize(),
        "reply_bytes": 5,
    }


async def test_the_hot_path_is_sampled_and_the_lines_count_what_they_left_out(lines):
    calls = Calls(hot_per_s=2)
    for _ in range(10):
        await calls.call()
    calls.clock.now_s += 1.0
    await calls.call()
    assert [line.get("sampled_out") for line in lines()] == [None, None, 8]


async def test_none_a_second_leaves_out_all_that_went_well(lines):
    calls = Calls(hot_per_s=0)
    for _ in range(3):
        await calls.call()
        calls.clock.now_s += 5
    assert lines() == []
    await calls.call(code=grpc.StatusCode.NOT_FOUND)
    assert [line["code"] for line in lines()] == ["NOT_FOUND"]


async def test_what_administers_has_a_line_each_up_to_a_bound(lines):
    calls = Calls(RARE)
    for _ in range(LINES_PER_S + 50):
        await calls.call()
    assert len(lines()) == LINES_PER_S
    calls.clock.now_s += 1
    await calls.call()
    assert lines()[-1]["sampled_out"] == 50


async def test_failed_calls_have_a_line_each_with_reason_and_text(lines):
    calls = Calls(hot_per_s=0)

    def refuse():
        refusal = Refusal(Reason.TOPIC_NOT_FOUND, f"there is no topic {EVIL}")
        to_proto(refusal)
        call_notes.current().failure = refusal

    error = grpc.aio.AbortError()
    with pytest.raises(grpc.aio.AbortError):
        await calls.call(code=grpc.StatusCode.NOT_FOUND, reply=error, note=refuse)
    [line] = lines()
    assert (line["code"], line["reason"]) == ("NOT_FOUND", "TOPIC_NOT_FOUND")
    assert line["why"].startswith("there is no topic evil")
    assert line["errors"] == 1


async def test_a_reply_with_errors_in_it_is_no_call_that_went_well(lines):
    calls = Calls(hot_per_s=0)
    note = partial(to_proto, Refusal(Reason.STORAGE_FULL, "full"))
    await calls.call(note=note)
    [line] = lines()
    assert (line["code"], line["errors"]) == ("OK", 1)
    assert (line["reason"], line["why"]) == ("STORAGE_FULL", "full")
    value = calls.metrics.registry.get_sample_value
    labels = {"method": HOT, "reason": "STORAGE_FULL"}
    assert value("riverrun_refusals_total", labels) == 1


async def test_slow_calls_have_their_line_but_for_the_wait_they_asked_for(lines):
    calls = Calls(hot_per_s=0, slow_s=1.0)
    request = c.FetchRequest()
    request.max_wait.FromMilliseconds(5000)
    await calls.call(request, took_s=5.5)
    assert lines() == []
    await calls.call(request, took_s=6.0)
    await calls.call(took_s=1.0)
    assert [line["slow"] for line in lines()] == [True, True]


async def test_slowness_can_be_left_unsaid_and_lines_be_turned_off(lines):
    await Calls(hot_per_s=0, slow_s=None).call(took_s=1e6)
    await Calls(RARE, enabled=False).call(code=grpc.StatusCode.INTERNAL)
    assert lines() == []


async def test_a_stream_says_what_went_through_it_and_is_never_slow(lines):
    def note():
        notes = call_notes.current()
        for number in range(TOPICS_NAMED + 5):
            notes.took(f"t{number}", 10)
        notes.received_bytes, notes.sent_bytes, notes.group_id = 7, 9, "g"

    await Calls(f"{NAME}/Subscribe", streams=True).call(took_s=86_400, note=note)
    [line] = lines()
    assert line["event"] == "stream ended"
    assert line["topics"] == [f"t{number}" for number in range(TOPICS_NAMED)]
    assert (line["records"], line["request_bytes"], line["reply_bytes"]) == (130, 7, 9)
    assert (line["group"], line.get("slow")) == ("g", None)


async def test_a_call_whose_client_went_is_cancelled(lines):
    calls = Calls(hot_per_s=0)
    with pytest.raises(asyncio.CancelledError):
        await calls.call(reply=asyncio.CancelledError())
    assert [line["code"] for line in lines()] == ["CANCELLED"]


async def test_notes_of_calls_under_way_at_once_do_not_mix(lines):
    calls = Calls(RARE)
    both = asyncio.Barrier(2)

    async def serve(request, _):
        call_notes.current().touched(request)
        await both.wait()
        call_notes.current().touched(f"{request}2")

    handle = CallLog(CallLogRules(), calls.metrics, calls.clock).around(
        "clients", RARE, serve, streams=False
    )
    await asyncio.gather(*(asyncio.create_task(handle(t, FakeContext())) for t in "ab"))
    assert sorted(line["topics"] for line in lines()) == [["a", "a2"], ["b", "b2"]]


@pytest.mark.parametrize("form", ["json", "console"])
async def test_text_from_clients_cannot_break_a_line_nor_make_it_long(form):
    out = io.StringIO()
    logs.configure(form, stream=out)
    long = EVIL + "x" * 10_000
    request = c.FetchRequest(group_id=long, positions=[c.StartPosition(topic=long)] * 100)
    handle = CallLog(CallLogRules(), Metrics(process=False), Clock()).around(
        "clients", HOT, lambda *_: asyncio.sleep(0), streams=False
    )
    await asyncio.create_task(handle(request, FakeContext(agent=long)))
    structlog.reset_defaults()
    text = out.getvalue()
    assert len(text.splitlines()) == 1
    assert text.rstrip("\n").isprintable()
    assert len(text.encode()) < 4000


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_line_stays_below_what_a_pipe_takes_whatever_the_names_are_made_of(form, streams):
    out = io.StringIO()
    logs.configure(form, stream=out)
    long = "\U0001f600" * 255

    async def serve(_, __):
        for number in range(TOPICS_NAMED):
            call_notes.current().took(f"{number}{long}", 1)
        call_notes.current().group_id = long
        for reason in Reason:
            to_proto(Refusal(reason, long))

    handle = CallLog(CallLogRules(), Metrics(process=False), Clock()).around(
        "clients", HOT, serve, streams=streams
    )
    await asyncio.create_task(handle(None, FakeContext(agent=long)))
    structlog.reset_defaults()
    assert "\U0001f600" in out.getvalue() or "\\ud83d" in out.getvalue()
    assert len(out.getvalue().encode()) < 4000


async def test_a_stream_that_ends_well_says_what_it_refused_and_how_often(lines):
    def note():
        for text in ("the disk is full", "the disk is still full"):
            to_proto(Refusal(Reason.STORAGE_FULL, text))
        to_proto(Refusal(Reason.TOPIC_NOT_FOUND, "no topic"))

    await Calls("riverrun.v1.ProducerService/ProduceStream", streams=True).call(note=note)
    [line] = lines()
    assert (line["code"], line["errors"]) == ("OK", 3)
    assert (line["reason"], line["why"]) == ("STORAGE_FULL", "the disk is full")
    assert line["errors_by_reason"] == {"STORAGE_FULL": 2, "TOPIC_NOT_FOUND": 1}


async def test_on_a_terminal_method_code_and_topics_come_first():
    out = io.StringIO()
    logs.configure("console", stream=out)

    async def serve(_, __):
        call_notes.current().touched("t")

    handle = CallLog(CallLogRules(), Metrics(process=False), Clock()).around(
        "clients", HOT, serve, streams=False
    )
    await asyncio.create_task(handle(None, FakeContext()))
    structlog.reset_defaults()
    keys = [part.partition("=")[0] for part in out.getvalue().split() if "=" in part]
    assert keys[:2] == ["method", "code"]
    assert keys.index("topics") < keys.index("peer") < keys.index("listener")


def test_the_settings_are_the_rules():
    def rules(**flags):
        shared = Shared(load(flags={f"log.{key}": each for key, each in flags.items()}).settings)
        return shared.admission.calls._rules

    assert rules() == CallLogRules()
    chosen = rules(calls="false", hot_calls_per_s="7", slow_call_ms="250ms")
    assert chosen == CallLogRules(enabled=False, hot_per_s=7, slow_s=0.25)
    assert rules(slow_call_ms="-1").slow_s is None


def test_what_requests_name_is_found_whatever_their_form():
    batch = RecordBatch(record_count=7, records=b"secret")
    request = ProduceRequest(batches=[PartitionBatch(topic="a", batch=batch)] * 2)
    assert named_in(request) == (["a"], "")
    assert records_in(request) == 14
    assert records_in(ProduceRequest(topic="t", records=[Record()] * 3)) == 3
    assert named_in(AddPartitionsRequest(topic="t", partitions=3)).topics == ["t"]
    assert named_in(c.CommitOffsetRequest(group_id="g")) == ([], "g")
    assert named_in(object()) == ([], "")
    assert size_of(ProduceResponse()) == size_of(None) == 0
    assert allowed_wait_s(ProduceRequest()) == 0


class Consumer(consumer_pb2_grpc.ConsumerServiceServicer):
    async def Fetch(self, request, context):  # noqa: N802
        if request.group_id == "refuse":
            raise Refusal(Reason.OFFSET_OUT_OF_RANGE, "no such offset")
        if request.group_id == "explode":
            raise ZeroDivisionError
        return c.FetchResponse()

    async def Read(self, request, context):  # noqa: N802
        yield c.ReadResponse()
        raise Refusal(Reason.CORRUPT_DATA, "damaged")


@pytest.fixture
async def channel():
    metrics = Metrics(process=False)
    log = CallLog(CallLogRules(hot_per_s=1000), metrics, Clock())
    add = partial(consumer_pb2_grpc.add_ConsumerServiceServicer_to_server, Consumer())
    services = [Service(NAME, add)]
    server = ListenerServer(
        Listener(name="inside", bind=LOOPBACK, advertised=LOOPBACK),
        services,
        options=OPTIONS,
        admission=Admission(Caps(100, 100, 100), metrics, log),
        status=ServingStatus(services),
        reflects=False,
    )
    await server.start()
    options = [("grpc.primary_user_agent", "riverrun-python mine")]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0)
        yield await stack.enter_async_context(
            grpc.aio.insecure_channel(str(server.listener.bind), options=options)
        )


async def test_a_real_server_leaves_a_line_for_every_way_in_which_a_call_ends(lines, channel):
    stub = consumer_pb2_grpc.ConsumerServiceStub(channel)
    await stub.Fetch(c.FetchRequest(group_id="g"))
    for group in ("refuse", "explode"):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Fetch(c.FetchRequest(group_id=group))
    with pytest.raises(grpc.aio.AioRpcError):
        [_ async for _ in stub.Read(c.ReadRequest(topic="t"))]
    told = [line for line in lines() if line["event"].endswith("ended")]
    assert [(line["event"], line["code"], line.get("reason")) for line in told] == [
        ("call ended", "OK", None),
        ("call ended", "OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
        ("call ended", "INTERNAL", "INTERNAL"),
        ("stream ended", "DATA_LOSS", "CORRUPT_DATA"),
    ]
    assert all(line["client"] == "riverrun-python mine" for line in told)
    assert all(line["listener"] == "inside" for line in told)
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in told)
    assert [line.get("errors") for line in told] == [None, 1, 1, 1]
