"""Tells the controller what this broker finds of others on its streams: one that refuses, one that answers."""

from __future__ import annotations

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.ports.peers import ControlCalls, ControlEvents


class Witness:
    """Implements ports.peers.Findings.

    Args:
        me: this broker.
        image: says who controls the cluster.
        here: takes what is found while this broker does.
        calls: carry it to another broker.
    """

    def __init__(
        self, me: int, image: ClusterImage, here: ControlEvents, calls: ControlCalls
    ) -> None:
        self._me = me
        self._image = image
        self._here = here
        self._calls = calls

    def refuses(self, broker: int, epoch: int) -> None:
        """Learn that a process that had taken a connection refuses them now."""
        controller = self._controller()
        if controller == self._me:
            self._here.refuses(self._me, broker, epoch)
        elif controller is not None:
            self._calls.refuses(controller, broker, epoch)

    def answers(self, broker: int) -> None:
        """Learn that a broker has taken a connection."""
        controller = self._controller()
        if controller == self._me:
            self._here.answers(self._me, broker)
        elif controller is not None:
            self._calls.answers(controller, broker)

    def _controller(self) -> int | None:
        found = self._image.controller
        return None if found is None else found.value.broker_id
