"""All routed partitions of a broker: who leads each, and what of them is led here for the gateways of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.values import Id, PartitionValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.gateway.lane import WAIT_S
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Held, Leaders, Led, Origin
from riverrun_server.runtime.gateway.routed_partition import RoutedPartition
from riverrun_server.runtime.gateway.services import GatewayServices


class Routing:
    """Implements ports.gateways.ServedHere.

    Transitions of one partition: absent -> served (`serve`) -> routed (`show`) -> routed elsewhere
    (`show`) -> closed (`show` finds its topic deleted, or `close`).

    Args:
        broker_id: of this broker.
        leaders: the streams to the others.
        origin: says for whom the call is made that is being served.
        wait_s: how long an append or a question waits for a leader.
    """

    def __init__(
        self,
        broker_id: int,
        leaders: Leaders,
        origin: Callable[[], Origin] = Origin,
        wait_s: float = WAIT_S,
    ) -> None:
        self._endpoints: dict[int, Mapping[str, str]] = {}
        self._services = GatewayServices(broker_id, leaders, origin, self._endpoints, wait_s=wait_s)
        self._topics: dict[bytes, dict[int, RoutedPartition]] = {}
        leaders.watch(self._changed)

    def serve(
        self, topic: str, partition: PartitionId, max_batch_bytes: int, local: Held | None
    ) -> RoutedPartition:
        """Return a partition as services see it; who leads it, `show` says.

        Args:
            topic: the topic's name.
            partition: which one.
            max_batch_bytes: the largest batch that the topic allows.
            local: the replica of this broker; None where it has none.
        """
        numbers = self._topics.setdefault(partition.topic_id, {})
        found = numbers.get(partition.partition)
        if found is None:
            found = RoutedPartition(topic, partition, max_batch_bytes, self._services)
            numbers[partition.partition] = found
        found.max_batch_bytes = max_batch_bytes
        found.hold(local)
        return found

    def show(self, image: ClusterImage, topic_ids: Iterable[Id] | None = None) -> None:
        """Follow the metadata; to be called once this broker's replicas have got their roles.

        Args:
            image: the metadata.
            topic_ids: of the topics that have changed; None is all of them, and the brokers.
        """
        if topic_ids is None or not self._endpoints:
            self._reach(image)
        for topic_id in list(self._topics if topic_ids is None else topic_ids):
            found = image.topic_by_id(Id(topic_id))
            if found is None:
                self._retire(topic_id)
                continue
            states = image.partitions.get(Id(topic_id), {})
            for number, routed in self._topics.get(topic_id, {}).items():
                state = states.get(number)
                if state is not None:
                    routed.route(state.value.leader_epoch, _leader(image, state.value))

    def close(self) -> None:
        """Serve nothing any more: the broker shuts down. To be called before the streams are closed."""
        why = Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down")
        topics = list(self._topics.values())
        self._topics.clear()
        for numbers in topics:
            for routed in numbers.values():
                routed.close(why)

    def find(self, partition: PartitionId) -> RoutedPartition | None:
        """Return a partition, if it is known here."""
        return self._topics.get(partition.topic_id, {}).get(partition.partition)

    def held(self, partition: PartitionId) -> Held | None:
        """Return this broker's replica of a partition, if it is open."""
        found = self.find(partition)
        return None if found is None else found.local

    def led(self, led: Led) -> Held:
        """Return a partition that is led here, under that leadership.

        Raises:
            Refusal: see ports.gateways.ServedHere.
        """
        found = self.find(led.partition)
        if found is None:
            # This broker may be behind with the metadata, or the one that asks.
            raise Refusal(
                Reason.UNKNOWN_LEADER_EPOCH,
                f"broker {self._services.broker_id} knows no partition {led.partition} (yet); ask again",
            )
        local = found.local
        if not found.led_here or local is None:
            raise self._not_led(found, led)
        if local.offline is not None:
            raise self._offline(local.offline, found, led)
        if led.leader_epoch > local.leader_epoch:
            raise self._unknown(found, led, local.leader_epoch)
        if led.leader_epoch < local.leader_epoch:
            raise Refusal(
                Reason.FENCED_LEADER_EPOCH,
                f"{found} is led in leader epoch {local.leader_epoch} and was asked for in epoch "
                f"{led.leader_epoch}, which has ended; refresh the metadata",
                leader=self._services.hint(self._services.broker_id, local.leader_epoch),
            )
        return local

    async def begun(self, led: Led, within_s: float) -> None:
        """Wait until this broker knows a leadership that it does not know yet, or the time is up."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_s
        while (left_s := deadline - clock()) > 0:
            try:
                self.led(led)
            except Refusal as refusal:
                found = self.find(led.partition)
                if found is not None and refusal.reason is Reason.UNKNOWN_LEADER_EPOCH:
                    await found.news(left_s)
                    continue
            return

    def _offline(self, why: Refusal, found: RoutedPartition, led: Led) -> Refusal:
        if why.reason is Reason.NOT_LEADER and led.leader_epoch >= found.leader_epoch:
            return self._unknown(found, led, found.leader_epoch)  # elected, and not begun yet
        return Refusal(why.reason, why.message)

    def _not_led(self, found: RoutedPartition, led: Led) -> Refusal:
        if led.leader_epoch > found.leader_epoch:
            return self._unknown(found, led, found.leader_epoch)
        leader = found.leader
        named = "nobody" if leader is None else f"broker {leader.broker_id}"
        return Refusal(
            Reason.NOT_LEADER,
            f"{found} is not led by broker {self._services.broker_id} but by {named} in leader epoch "
            f"{found.leader_epoch}",
            leader=leader,
        )

    def _unknown(self, found: RoutedPartition, led: Led, known: int) -> Refusal:
        return Refusal(
            Reason.UNKNOWN_LEADER_EPOCH,
            f"{found} was asked for in leader epoch {led.leader_epoch}, and broker "
            f"{self._services.broker_id} leads it in none later than {known} yet; ask again",
        )

    def _changed(self, broker: int) -> None:
        """Learn that a stream to a broker has been opened, or has ended."""
        for numbers in list(self._topics.values()):
            for routed in numbers.values():
                if routed.leader is not None and routed.leader.broker_id == broker:
                    routed.reachable_changed()

    def _reach(self, image: ClusterImage) -> None:
        others: dict[int, str] = {}
        self._endpoints.clear()
        for broker_id, registration in image.brokers.items():
            self._endpoints[broker_id] = registration.value.endpoints
            if registration.value.peer_endpoint and broker_id != self._services.broker_id:
                others[broker_id] = registration.value.peer_endpoint
        self._services.leaders.reach(others)

    def _retire(self, topic_id: bytes) -> None:
        for routed in self._topics.pop(topic_id, {}).values():
            text = f"topic {routed.topic!r} has been deleted"
            routed.close(Refusal(Reason.TOPIC_NOT_FOUND, text))


def _leader(image: ClusterImage, state: PartitionValue) -> int | None:
    """Return who leads a partition; None where the process that does is gone."""
    registration = image.brokers.get(state.leader)
    if registration is None or broker_epoch(registration) != state.leader_broker_epoch:
        return None
    return state.leader
