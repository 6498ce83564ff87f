"""The simulated network promises what TCP does, loses what a broken stream carried, and no more."""

from __future__ import annotations

from tests.sim.cluster.network import KEEPALIVE_S, Lost, Network, Stream
from tests.sim.cluster.world import Process, World


class Node:
    def __init__(self, name: str) -> None:
        self.process = Process(name)
        self.streams: list[Stream] = []
        self.got: list[object] = []
        self.lost: list[Stream] = []

    def opened(self, stream: Stream) -> None:
        self.streams.append(stream)

    def received(self, stream: Stream, payload: object) -> None:
        self.got.append(payload)

    def broken(self, stream: Stream) -> None:
        self.lost.append(stream)


class Net:
    def __init__(self, seed: int = 1, names: str = "ab") -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.nodes = {name: Node(name) for name in names}
        for name, node in self.nodes.items():
            self.network.attach(name, node)

    def open(self, opener: str = "a", acceptor: str = "b") -> Stream | None:
        found: list[Stream | None] = []
        self.network.open(opener, acceptor, found.append)
        self.run(2.0)
        (stream,) = found
        return stream if isinstance(stream, Stream) else None

    def run(self, for_s: float) -> None:
        self.world.run(self.world.now_s + for_s)


def test_a_stream_keeps_its_order_whatever_the_delays():
    for seed in range(30):
        net = Net(seed)
        stream = net.open()
        net.network.slow["a", "b"] = 0.5
        for number in range(50):
            stream.send("a", number)
            net.run(0.001)
        net.run(5.0)
        assert net.nodes["b"].got == list(range(50))
        assert net.network.bitten["messages slowed"] > 0


def test_a_paused_receiver_gets_everything_in_order_when_it_goes_on():
    net = Net()
    stream = net.open()
    net.world.pause(net.nodes["b"].process)
    for number in range(20):
        stream.send("a", number)
    net.run(1.0)
    assert net.nodes["b"].got == []
    net.world.resume(net.nodes["b"].process)
    for number in range(20, 30):
        stream.send("a", number)
    net.run(1.0)
    assert net.nodes["b"].got == list(range(30))


def test_two_streams_overtake_each_other():
    orders = set()
    for seed in range(30):
        net = Net(seed)
        one, other = net.open(), net.open()
        one.send("a", 1)
        other.send("a", 2)
        net.run(1.0)
        orders.add(tuple(net.nodes["b"].got))
    assert orders == {(1, 2), (2, 1)}


def test_a_broken_stream_loses_what_is_on_its_way_and_both_ends_learn_of_it():
    net = Net()
    stream = net.open()
    stream.send("a", 1)
    net.run(1.0)
    stream.send("a", 2)
    stream.send("b", 3)
    assert net.network.break_streams("b", "a") == 1
    stream.send("a", 4)
    net.run(1.0)
    assert net.nodes["b"].got == [1]
    assert net.nodes["a"].got == []
    assert net.nodes["a"].lost == net.nodes["b"].lost == [stream]
    assert net.network.bitten["messages lost with a stream"] == 2


def test_a_short_cut_delays_and_loses_nothing():
    net = Net()
    stream = net.open()
    net.network.cut("a", "b")
    for number in range(5):
        stream.send("a", number)
    stream.send("b", "back")
    net.run(KEEPALIVE_S / 4)
    assert net.nodes["b"].got == []
    assert net.nodes["a"].got == ["back"]  # only one direction is cut
    net.network.mend("a", "b")
    net.run(1.0)
    assert net.nodes["b"].got == list(range(5))
    assert net.network.bitten["messages held"] == 5
    net.run(10 * KEEPALIVE_S)
    assert stream.is_open


def test_a_long_cut_breaks_the_stream():
    net = Net()
    stream = net.open()
    net.network.cut("a", "b")
    stream.send("a", 1)
    net.run(3 * KEEPALIVE_S)
    assert not stream.is_open
    assert net.nodes["a"].lost == net.nodes["b"].lost == [stream]
    assert net.nodes["b"].got == []


def test_cuts_that_overlap_end_when_both_have():
    net = Net()
    net.network.cut("a", "b")
    net.network.cut("a", "b")
    net.network.mend("a", "b")
    assert net.network.is_cut("a", "b")
    assert net.open() is None
    net.network.mend("a", "b")
    assert net.open() is not None


def test_nobody_answers_for_a_process_that_has_ended():
    net = Net()
    stream = net.open()
    stream.send("a", 1)
    net.world.end(net.nodes["b"].process)
    net.network.vanish("b")
    net.run(1.0)
    assert net.nodes["a"].lost == [stream]
    assert net.nodes["b"].got == net.nodes["b"].lost == []
    assert net.open() is None
    net.nodes["b"] = Node("b")
    net.network.attach("b", net.nodes["b"])
    net.open().send("a", 2)
    net.run(1.0)
    assert net.nodes["b"].got == [2]


def test_a_machine_that_is_down_does_not_even_refuse():
    net, answers = Net(), []
    net.world.end(net.nodes["b"].process)
    net.network.open("a", "b", answers.append)
    net.run(2.0)
    net.network.silent.add("b")
    net.network.open("a", "b", answers.append)
    net.run(2.0)
    assert answers == [None, Lost.LOST]


def test_nothing_arrives_on_a_stream_before_its_opener_knows_of_it():
    for seed in range(30):
        net = Net(seed)
        order = []
        net.nodes["b"].opened = lambda stream: stream.send("b", "hello")
        net.nodes["a"].received = lambda stream, payload, order=order: order.append(payload)
        net.network.open("a", "b", lambda stream, order=order: order.append("open"))
        net.run(1.0)
        assert order == ["open", "hello"]


def call(net: Net, timeout_s: float = 1.0):
    handled, answers = [], []

    def handle() -> str:
        handled.append(net.world.now_s)
        return "yes"

    net.network.call("a", "b", handle, answers.append, timeout_s)
    net.run(3.0)
    return len(handled), answers


def test_a_call_is_answered_once():
    assert call(Net()) == (1, ["yes"])


def test_a_request_that_is_cut_off_is_never_handled():
    net = Net()
    net.network.cut("a", "b")
    assert call(net) == (0, [Lost.LOST])
    assert net.network.bitten["requests lost"] == 1


def test_a_reply_that_is_lost_leaves_what_was_done():
    net = Net()
    net.network.cut("b", "a")
    assert call(net) == (1, [Lost.LOST])
    net = Net()
    net.network.lose_replies["b"] = 1.0
    assert call(net) == (1, [Lost.LOST])
    assert net.network.bitten["replies lost"] == 1


def test_a_late_request_is_handled_although_nobody_waits_any_more():
    net = Net()
    net.world.pause(net.nodes["b"].process)
    net.world.after(2.0, net.world.resume, net.nodes["b"].process)
    assert call(net) == (1, [Lost.LOST])


def test_the_same_seed_delivers_at_the_same_times():
    def times(seed: int) -> list[float]:
        net = Net(seed)
        seen = []
        net.nodes["b"].received = lambda stream, payload: seen.append(net.world.now_s)
        stream = net.open()
        for number in range(10):
            stream.send("a", number)
        net.run(1.0)
        return seen

    assert times(3) == times(3) != times(4)
