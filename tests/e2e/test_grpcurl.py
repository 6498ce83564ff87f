"""What a shell can do with grpcurl and nothing else: no .proto file, no stub, only reflection."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
import zlib
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from riverrun.v1 import admin_pb2, consumer_pb2, errors_pb2, producer_pb2, text_pb2
from riverrun.v1.records_pb2 import Record, RecordSet
from tests.polyglot import toolchain

pytestmark = [pytest.mark.polyglot, toolchain.BUILDS]

PROTOS = Path(__file__).resolve().parents[2] / "proto" / "riverrun" / "v1"
SERVICES = {
    f"riverrun.v1.{name}Service"
    for name in ("Admin", "Consumer", "Group", "Metadata", "Producer", "Text")
}
RESPONSES = {
    "AdminService/CreateTopic": admin_pb2.CreateTopicResponse,
    "ConsumerService/CommitOffset": consumer_pb2.CommitOffsetResponse,
    "ConsumerService/Fetch": consumer_pb2.FetchResponse,
    "ConsumerService/FetchOffsets": consumer_pb2.FetchOffsetsResponse,
    "ConsumerService/ListOffsets": consumer_pb2.ListOffsetsResponse,
    "ConsumerService/Read": consumer_pb2.ReadResponse,
    "ConsumerService/Subscribe": consumer_pb2.SubscribeResponse,
    "ProducerService/Produce": producer_pb2.ProduceResponse,
    "TextService/Produce": text_pb2.TextServiceProduceResponse,
    "TextService/Tail": text_pb2.TailResponse,
}
MAX_TIME = ("-max-time", "20")
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class Shell:
    """grpcurl against one broker."""

    def __init__(self, grpcurl: str, address: str) -> None:
        self._grpcurl = grpcurl
        self.address = address

    def run(self, *flags: str, verb: str = ""):
        """Run it with flags, then the address, then a verb such as `list`."""
        arguments = [self._grpcurl, "-plaintext", *flags, self.address, *shlex.split(verb)]
        return toolchain.run(arguments)

    def tell(self, verb: str) -> str:
        """Return what `list` or `describe` prints."""
        done = self.run(verb=verb)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, method: str, *requests: dict):
        """Call a method and return its replies."""
        data = "".join(map(json.dumps, requests))
        done = self.run(*MAX_TIME, "-d", data, verb=f"riverrun.v1.{method}")
        assert done.returncode == 0, done.stdout + done.stderr
        return [json_format.ParseDict(each, RESPONSES[method]()) for each in objects(done.stdout)]

    def begin(self, method: str, request: dict) -> subprocess.Popen[str]:
        """Begin a call whose replies are read while it goes on."""
        data = json.dumps(request)
        command = [self._grpcurl, "-plaintext", *MAX_TIME, "-d", data, self.address]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, f"riverrun.v1.{method}"], stdout=pipe, stderr=pipe, text=True
        )

    def fail(self, method: str, request: dict) -> dict:
        """Call a method that must fail and return its google.rpc.Status."""
        flags = (*MAX_TIME, "-format-error", "-d", json.dumps(request))
        done = self.run(*flags, verb=f"riverrun.v1.{method}")
        assert done.returncode != 0, done.stdout
        (status,) = objects(done.stderr)
        return status


def objects(text: str) -> list[dict]:
    """Return the JSON objects that stand one behind the other in `text`."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while rest := text[at:].lstrip():
        at = len(text) - len(rest)
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def shell(shared_broker):
    return Shell(toolchain.grpcurl(), shared_broker.address)


@pytest.fixture
def new_topic(shell, topic):
    """A topic of the test's own, with one partition."""
    (response,) = shell.call("AdminService/CreateTopic", {"topic": topic})
    assert response.created
    return response.topic


def test_reflection_lists_every_service(shell):
    listed = set(shell.tell("list").split())
    assert listed >= SERVICES | {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
    described = shell.tell("describe")
    assert all(f"{name} is a service:" in described for name in listed)


def test_reflection_describes_services_and_messages(shell):
    service = shell.tell("describe riverrun.v1.ConsumerService")
    assert "rpc Subscribe ( stream .riverrun.v1.SubscribeRequest )" in service
    method = shell.tell("describe riverrun.v1.ConsumerService.Subscribe")
    assert "rpc Subscribe ( stream .riverrun.v1.SubscribeRequest )" in method
    assert "// What keeps records together" in shell.tell("describe riverrun.v1.Record")
    assert "fixed32 placement_crc = 107;" in shell.tell("describe riverrun.v1.RecordBatch")
    assert "ERROR_REASON_TOPIC_NOT_FOUND = 10;" in shell.tell("describe riverrun.v1.ErrorReason")


def test_every_method_is_implemented(shell):
    methods = [
        name for service in sorted(SERVICES) for name in shell.tell(f"list {service}").split()
    ]
    assert len(methods) >= 20
    for name in methods:
        service, _, method = name.rpartition(".")
        done = shell.run("-max-time", "1", "-format-error", "-d", "{}", verb=f"{service}/{method}")
        codes = [status["code"] for status in objects(done.stderr)]
        assert UNIMPLEMENTED not in codes, name


def test_flat_records_are_produced_and_read(shell, new_topic):
    request = {
        "topic": new_topic.topic,
        "records": [
            {"key": in_base64(b"k"), "value": in_base64(b"one")},
            {"value": in_base64(b"two"), "headers": [{"key": "h", "value": in_base64(b"v")}]},
            {"key": in_base64(b"k")},
        ],
    }
    (response,) = shell.call("ProducerService/Produce", request)
    (result,) = response.results
    assert (result.base_offset, result.record_count) == (0, 3)
    replies = shell.call("ConsumerService/Read", {"topic": new_topic.topic, "stop_at_end": True})
    assert replies[0].WhichOneof("kind") == "started"
    records = [record for reply in replies for record in reply.delivery.records]
    assert [record.offset for record in records] == [0, 1, 2]
    assert [record.value for record in records] == [b"one", b"two", b""]
    assert [record.HasField("value") for record in records] == [True, True, False]
    assert [(each.key, each.value) for each in records[1].headers] == [("h", b"v")]


def test_a_batch_with_its_own_checksum_is_produced(shell, new_topic):
    data = RecordSet(records=[Record(value=b"a"), Record(value=b"b")]).SerializeToString()
    batch = {"records": in_base64(data), "records_crc": zlib.crc32(data), "record_count": 2}
    wrong = batch | {"records_crc": zlib.crc32(data) ^ 1}
    batches = [{"topic": new_topic.topic, "batch": each} for each in (batch, wrong, batch)]
    (response,) = shell.call("ProducerService/Produce", {"batches": batches})
    refused = errors_pb2.ERROR_REASON_INVALID_RECORD
    assert [result.error.reason for result in response.results] == [0, refused, 0]
    assert [result.base_offset for result in response.results] == [0, 0, 2]


def test_a_subscription_goes_on_after_half_close(shell, new_topic):
    for value in ("one", "two", "three", "four"):
        shell.call("TextService/Produce", {"topic": new_topic.topic, "value": value})
    start = {"topics": [new_topic.topic], "from_offset": 1, "max_records": 2}
    replies = shell.call("ConsumerService/Subscribe", {"start": start})
    assert replies[0].started.positions[0].offset == 1
    deliveries = [reply.delivery for reply in replies if reply.HasField("delivery")]
    records = [record for delivery in deliveries for record in delivery.records]
    assert [(record.offset, record.value) for record in records] == [(1, b"two"), (2, b"three")]
    assert deliveries[-1].next_offset == 3


def test_a_subscription_that_has_half_closed_waits_for_records(shell, new_topic):
    start = {"topics": [new_topic.topic], "max_records": 2}
    with shell.begin("ConsumerService/Subscribe", {"start": start}) as subscription:
        printed = ""
        while "caught" not in printed:  # by then grpcurl has sent all that it will ever send
            line = subscription.stdout.readline()
            assert line, subscription.stderr.read()
            printed += line
        for value in ("one", "two"):
            shell.call("TextService/Produce", {"topic": new_topic.topic, "value": value})
        printed += subscription.stdout.read()
        errors = subscription.stderr.read()
    assert subscription.returncode == 0, errors
    replies = [
        json_format.ParseDict(each, consumer_pb2.SubscribeResponse()) for each in objects(printed)
    ]
    records = [record for reply in replies for record in reply.delivery.records]
    assert [record.value for record in records] == [b"one", b"two"]


def test_a_group_commits_and_goes_on_from_there(shell, new_topic):
    group = f"{new_topic.topic}-group"
    texts = [{"value": value} for value in ("one", "two", "three")]
    shell.call("TextService/Produce", {"topic": new_topic.topic, "records": texts})
    offsets = [{"topic": new_topic.topic, "partition": 0, "offset": 2}]
    (committed,) = shell.call(
        "ConsumerService/CommitOffset", {"group_id": group, "offsets": offsets}
    )
    assert [result.HasField("error") for result in committed.results] == [False]
    (found,) = shell.call("ConsumerService/FetchOffsets", {"group_id": group})
    assert [each.committed.offset for each in found.offsets] == [2]
    start = {"topics": [new_topic.topic], "group_id": group, "stop_at_end": True}
    replies = shell.call("ConsumerService/Subscribe", {"start": start})
    values = [record.value for reply in replies for record in reply.delivery.records]
    assert values == [b"three"]


def test_text_needs_no_base64(shell, new_topic):
    (response,) = shell.call(
        "TextService/Produce", {"topic": new_topic.topic, "key": "größe", "value": "hello"}
    )
    assert [result.base_offset for result in response.results] == [0]
    raw = [{"value": in_base64(b"\xff!")}]
    shell.call("ProducerService/Produce", {"topic": new_topic.topic, "records": raw})
    tail = {"topic": new_topic.topic, "from_last": 10, "stop_at_end": True}
    first, second = shell.call("TextService/Tail", tail)
    assert (first.offset, first.key, first.value, first.lossy) == (0, "größe", "hello", False)
    assert (second.offset, second.value, second.lossy) == (1, "\ufffd!", True)


def test_fetch_and_list_offsets_answer_at_once(shell, new_topic):
    shell.call("TextService/Produce", {"topic": new_topic.topic, "value": "only"})
    query = {"topic": new_topic.topic, "from": "FROM_LATEST"}
    (listed,) = shell.call("ConsumerService/ListOffsets", {"queries": [query]})
    assert [answer.offset for answer in listed.answers] == [1]
    position = {"topic": new_topic.topic, "partition": 0, "offset": 0}
    (fetched,) = shell.call("ConsumerService/Fetch", {"positions": [position]})
    assert [record.value for each in fetched.deliveries for record in each.records] == [b"only"]


def test_an_error_is_typed(shell):
    status = shell.fail("TextService/Produce", {"topic": "no-such-topic", "value": "x"})
    assert status["code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert "no-such-topic" in status["message"]
    details = {detail.pop("@type").rpartition("/")[2]: detail for detail in status["details"]}
    error = json_format.ParseDict(details["riverrun.v1.Error"], errors_pb2.Error())
    assert error.reason == errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND
    assert error.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
    assert error.message == status["message"]
    assert details["google.rpc.ErrorInfo"]["domain"] == "riverrun.dev"
    assert details["google.rpc.ErrorInfo"]["reason"] == "TOPIC_NOT_FOUND"


def documented_examples() -> list[str]:
    """Return the grpcurl commands in the comments of the protos."""
    commented = "\n".join(path.read_text() for path in sorted(PROTOS.glob("*.proto")))
    text = re.sub(r"\\\n\s*//\s*", "", commented)
    return re.findall(r"//\s+(grpcurl .*)", text)


def test_the_examples_in_the_protos_run(shell):
    examples = [shlex.split(line) for line in documented_examples()]
    assert len(examples) >= 6
    seeded = False
    for example in sorted(examples, key=lambda words: "CreateTopic" not in words[-1]):
        *flags, address, method = example[1:]
        assert address == "127.0.0.1:7171"
        done = shell.run("-max-time", "2", "-format-error", *flags[1:], verb=method)
        codes = [status["code"] for status in objects(done.stderr)]
        # A tail, and a member of a group, follow for ever.
        follows = "Tail" in method or ("Subscribe" in method and "group_id" in " ".join(flags))
        following = follows and codes == [DEADLINE_EXCEEDED]
        assert done.returncode == 0 or following, (example, done.stderr)
        if not seeded:
            texts = [{"value": str(number)} for number in range(10)]
            shell.call("TextService/Produce", {"topic": "t", "records": texts})
            commit = {"topic": "t", "partition": 0, "offset": 0}
            shell.call("ConsumerService/CommitOffset", {"group_id": "g", "offsets": [commit]})
            seeded = True
        assert objects(done.stdout), example
