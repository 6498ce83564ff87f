"""However a program without async ends, what was sent is flushed within a bound, and nothing complains."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import riverrun
import riverrun.blocking

START = """
import os, signal, sys, threading, time
import riverrun, riverrun.blocking
# Whoever runs the tests in the background has made all of them deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
address, topic = sys.argv[1:]
client = riverrun.blocking.Client(address)
producer = client.producer()
producer.send(topic, b"0")
"""


def program(text, broker, topic):
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", START + text, broker.address, topic],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )


def ended(process, code=0):
    """Return what it said, having said nothing on standard error where it ended well."""
    try:
        output, errors = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == code, errors
    # Debug mode's slow callbacks are no complaint.
    lines = [line for line in errors.splitlines() if not line.startswith("Executing <")]
    return output, "\n".join(lines)


@pytest.fixture
def topic(real_broker, own_topic):
    with riverrun.blocking.Client(real_broker.address) as client:
        client.admin().create_topic(own_topic, partitions=1)
    return own_topic


def count(broker, topic):
    with riverrun.blocking.Client(broker.address) as client:
        return sum(p.high_watermark for p in client.admin().describe_topic(topic).partitions)


SENDING = "for n in range(999): producer.send_nowait(topic, b'v')\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (SENDING, 0, ""),
        (SENDING + "sys.exit(3)", 3, ""),
        (SENDING + "1 / 0", 1, "ZeroDivisionError: division by zero"),
        (SENDING + "threading.Thread(target=sys.exit, args=(4,)).start()", 0, ""),
        ("def send():\n " + SENDING + "threading.Thread(target=send).start()", 0, ""),
        (SENDING + "client.close(); client.close()", 0, ""),
        (SENDING + "del producer, client", 0, ""),
        (
            "def forever():\n"
            " while True: producer.send(topic, b'daemon')\n"
            "for _ in range(4): threading.Thread(target=forever, daemon=True).start()\n" + SENDING,
            0,
            "",
        ),
        (
            "consumer = client.consumer(topic)\n"
            "threading.Thread(target=lambda: [*consumer], daemon=True).start()\n"
            "next(client.consumer(topic)); next(client.consumer(topic).batches())\n" + SENDING,
            0,
            "",
        ),
    ],
    ids=["end", "exit", "raise", "thread-exit", "thread-sends", "close", "del", "daemons", "consumers"],
)  # fmt: skip
def test_what_was_sent_is_flushed_when_the_program_ends(real_broker, topic, text, code, said):
    output, errors = ended(program(text, real_broker, topic), code)
    assert output == ""
    assert (errors == "") if not said else errors.endswith(said)
    assert count(real_broker, topic) >= 1000


def test_a_broker_that_is_gone_holds_an_exit_up_only_so_long(tmp_path, own_topic):
    text = """
print("ready", flush=True)
sys.stdin.readline()
future = producer.send_nowait(topic, b"v")
"""
    from tests.e2e.broker_process import BrokerProcess  # noqa: PLC0415 - one that can be killed

    broker = BrokerProcess(tmp_path)
    try:
        broker.start()
        with riverrun.blocking.Client(broker.address) as client:
            client.admin().create_topic(own_topic, partitions=1)
        process = subprocess.Popen(
            [sys.executable, "-c", START + text, broker.address, own_topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        broker.kill9()
        began_s = time.monotonic()
        process.stdin.write("go\n")
        process.stdin.flush()
        _, errors = ended(process)
    finally:
        broker.stop()
    assert time.monotonic() - began_s < 20
    assert "Traceback" not in errors


BLOCKING = {
    "next": "consumer = client.consumer(topic); next(consumer); call = lambda: next(consumer)",
    "getmany": "consumer = client.consumer(topic, from_='latest'); call = consumer.getmany",
    "batches": "call = lambda: [*client.consumer(topic).batches()]",
    "send_many": "call = lambda: producer.send_many(topic, iter(lambda: b'v', None))",
    "source": "call = lambda: producer.send_many(topic, iter(threading.Event().wait, None))",
    "send": "call = lambda: [producer.send(topic, b'v') for _ in iter(int, 1)]",
    "flush": "os.kill(int(os.environ['BROKER']), signal.SIGSTOP); "
    "producer.send_nowait(topic, b'v'); call = producer.flush",
    "close": "os.kill(int(os.environ['BROKER']), signal.SIGSTOP); "
    "producer.send_nowait(topic, b'v'); call = client.close",
}
INTERRUPTED = """
import _thread
def interrupt():
    time.sleep(0.5)
    global interrupted_s
    interrupted_s = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    call()
except KeyboardInterrupt:
    prompt = time.monotonic() - interrupted_s < 1
os.kill(int(os.environ["BROKER"]), signal.SIGCONT)
if call != client.close:
    client.server_info()
client.close()
print("prompt and closed" if prompt else "late")
"""


@pytest.mark.parametrize("name", BLOCKING)
def test_an_interrupt_ends_a_call_at_once_and_the_client_can_be_used_and_closed(
    real_broker, topic, name, monkeypatch
):
    monkeypatch.setenv("BROKER", str(real_broker.pid))
    process = program(BLOCKING[name] + INTERRUPTED, real_broker, topic)
    try:
        assert ended(process) == ("prompt and closed\n", "")
    finally:
        os.kill(real_broker.pid, signal.SIGCONT)


INTERRUPTS = """
producer.send_many(topic, (b"%d" % n for n in range(1, COUNT)))
consumer = client.consumer(topic, stop_at_end=True, group="g")
go = threading.Semaphore(0)
def interrupt():
    for round in range(40):
        go.acquire()
        time.sleep(0.0007 * (round % 7))
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
taken, interrupts, ready = [], 0, True
while True:
    records = None
    try:
        # Interrupts come one at a time, and in this block only.
        if ready:
            ready = False
            go.release()
        TAKE
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        break
    except KeyboardInterrupt:
        interrupts += 1
        if records and (not taken or taken[-1] is not records[-1]):
            taken += records
        ready = True
values = [int(record.value) for record in taken]
assert interrupts > 5, interrupts
print(len({*range(COUNT)} - {*values}), values == sorted(values))
"""
GETMANY = """while records := consumer.getmany(5):
            taken += records"""
ITERATING = """for record in consumer:
            taken.append(record)"""
TAKING = {"getmany": (3000, GETMANY), "iterating": (80_000, ITERATING)}


@pytest.mark.parametrize("way", TAKING)
def test_an_interrupt_loses_no_record_that_was_not_returned(real_broker, topic, way):
    count, take = TAKING[way]
    text = INTERRUPTS.replace("COUNT", str(count)).replace("TAKE", take)
    assert ended(program(text, real_broker, topic)) == ("0 True\n", "")


@pytest.mark.parametrize(("set_to", "read"), [(None, "0"), ("1", "1")])
@pytest.mark.parametrize("module", ["riverrun.blocking", "riverrun.client"])
def test_grpc_reads_that_it_has_no_fork_handlers_unless_the_environment_wants_them(
    module, set_to, read
):
    text = """
import os, sys
class Reading:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))
sys.meta_path.insert(0, Reading())
"""
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": set_to or ""}
    if set_to is None:
        del environment["GRPC_ENABLE_FORK_SUPPORT"]
    done = subprocess.run(
        [sys.executable, "-c", f"{text}import {module}"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout == f"{read}\n"


# Whether gRPC's own handlers are off, the test above tells for certain; they crash one child in five,
# which the few forks here need not show.
def test_a_child_process_is_told_and_its_parent_goes_on(real_broker, topic):
    text = """
consumer = client.consumer(topic)
next(consumer)
unused = riverrun.blocking.Client(address)
for round in range(4):
    child = os.fork()
    if not child:
        with client, producer, consumer:
            for call in (
                client.server_info, lambda: producer.send(topic, b""), lambda: next(consumer),
                lambda: producer.send_nowait(topic, b""), consumer.paused, client.producer,
                riverrun.blocking.Client(address).server_info, unused.server_info,
            ):
                try:
                    call()
                except riverrun.FatalError as error:
                    assert error.reason == "FORKED" and "after forking" in str(error)
                else:
                    print("not refused", call)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    producer.send(topic, b"parent")
    assert next(consumer).value == b"parent"
print("parent went on")
"""
    assert ended(program(text, real_broker, topic)) == ("parent went on\n", "")


def test_a_future_from_before_the_fork_tells_what_it_knew_then_and_waits_for_no_more(
    real_broker, topic
):
    text = """
lingering = client.producer(linger_s=1)
known, unknown = producer.send_nowait(topic, b"known"), lingering.send_nowait(topic, b"unknown")
offset = known.result().offset
child = os.fork()
if not child:
    assert known.result(20).offset == offset and known.exception(20) is None
    for ask in (unknown.result, unknown.exception):
        try:
            ask(20)
        except riverrun.FatalError as error:
            assert error.reason == "FORKED" and not error.outcome_known, error
        else:
            print("not told", ask)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("parent was told", unknown.result(20).offset > offset)
"""
    assert ended(program(text, real_broker, topic)) == ("parent was told True\n", "")


def test_a_client_that_was_made_and_not_used_works_in_the_child(real_broker, topic):
    text = """
import riverrun, riverrun.blocking, os, sys
client = riverrun.blocking.Client(sys.argv[1])
if not (child := os.fork()):
    with client, client.producer() as producer:
        sys.exit(producer.send(sys.argv[2], b"v").partition)
assert os.waitpid(child, 0)[1] == 0
print(client.server_info().broker_id >= 0)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, real_broker.address, topic],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ended(process) == ("True\n", "")
    assert count(real_broker, topic) == 1


def client_threads():
    return [thread for thread in threading.enumerate() if thread.name == "riverrun client"]


def test_a_forgotten_client_flushes_and_its_thread_ends(real_broker, topic):
    others = client_threads()
    client = riverrun.blocking.Client(real_broker.address)
    producer = client.producer(linger_s=0.5)
    producer.send_nowait(topic, b"v")
    [thread] = [one for one in client_threads() if one not in others]
    del client
    gc.collect()
    assert thread.is_alive(), "whoever has a producer has its client"
    del producer
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert count(real_broker, topic) == 1


def test_a_client_that_is_collected_on_its_own_thread_is_closed(real_broker):
    others = client_threads()
    client = riverrun.blocking.Client(real_broker.address)
    client.server_info()
    [thread] = [one for one in client_threads() if one not in others]
    own, last = client._session.thread, [client]
    del client
    own.post(last.clear)
    thread.join(20)
    assert not thread.is_alive()
