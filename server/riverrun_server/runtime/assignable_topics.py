"""The topics whose partitions members of groups can be given, as the metadata known here has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.served_topics import ServedTopic


class CatalogTopics:
    """Implements runtime.coordinator_services.AssignableTopics.

    Transitions: made -> following (`run`) -> over (`run` is cancelled, or the catalog closes).

    Args:
        catalog: of all topics.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._watching: dict[object, Callable[[], None]] = {}
        self._known: Mapping[str, AssignableTopic] = {}
        self._known_at = -1

    async def run(self) -> None:
        """Tell whoever watches, until cancelled, or until the catalog closes."""
        watcher = self._catalog.watch(())
        try:
            while True:
                await watcher.next()
                for changed in [*self._watching.values()]:
                    changed()
        except Refusal:
            return
        finally:
            watcher.close()

    def current(self) -> Mapping[str, AssignableTopic]:
        """Return the topics that are known here now, by name; none of those that belong to the brokers."""
        revision = self._catalog.revision
        if revision != self._known_at:
            self._known, self._known_at = self._read(), revision
        return self._known

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever topics or racks are others; returns what ends that."""
        key = object()
        self._watching[key] = changed

        def unwatch() -> None:
            self._watching.pop(key, None)

        return unwatch

    def _read(self) -> dict[str, AssignableTopic]:
        catalog = self._catalog
        racks = {each.broker_id: each.rack for each in catalog.brokers()}
        topics = {}
        for name in [*catalog.topics.names]:
            topic = catalog.topics.get(name)
            if topic is not None and not catalog.is_internal(name):
                topics[name] = _assignable(topic, racks)
        return topics


def _assignable(topic: ServedTopic, racks: Mapping[int, str]) -> AssignableTopic:
    of_partitions = [
        frozenset(rack for each in state.replicas if (rack := racks.get(each)))
        if state is not None
        else frozenset[str]()
        for state in topic.states
    ]
    return AssignableTopic(
        topic_id=topic.value.topic_id,
        partitions=len(topic.partitions),
        racks=tuple(of_partitions) if any(of_partitions) else (),
    )
