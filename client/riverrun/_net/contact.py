"""Whether anything is heard of brokers, for all the streams of one consumer together."""

from __future__ import annotations

import asyncio
import copy
import logging

from riverrun._core.episodes import Episodes
from riverrun._net.channel import Connections
from riverrun._net.subscribe_stream import SubscribeStream
from riverrun.errors import NoBrokerError, Reason, RetriableError

# Within that a broker is found that is there; who has waited longer is told why nothing comes.
_ALONE_S = 2.0

_log = logging.getLogger("riverrun")


class Contact:
    """What one consumer has heard, and when.

    Args:
        connections: where brokers may be.
        stop_at_end: somebody waits for the consumer's end.

    Attributes:
        begun: a stream has begun.
        open: how many streams there are just now.
        closing: the consumer ends its streams itself.
    """

    def __init__(self, connections: Connections, *, stop_at_end: bool) -> None:
        self._connections = connections
        self._stop_at_end = stop_at_end
        self._episodes: Episodes[str] = Episodes()
        self._heard_s = self._alone_s = 0.0
        self.begun = False
        self.open = 0
        self.closing = False

    def start(self) -> None:
        """Reckon from now on."""
        self._heard_s = self._alone_s = asyncio.get_running_loop().time()

    def stream_opened(self) -> None:
        """Take that there is one more stream."""
        self.open += 1
        self._episodes.worked("broker")

    def stream_closed(self) -> None:
        """Take that there is one fewer."""
        self.open -= 1
        if not self.open:
            self._alone_s = asyncio.get_running_loop().time()

    def waited_in_vain(self) -> None:
        """Tell, once, who has waited for records that there is no broker that could send any."""
        if self.open:
            return
        now_s = asyncio.get_running_loop().time()
        lasted_s = now_s - self._alone_s
        addresses = ", ".join(self._connections.addresses)
        nobody = NoBrokerError(f"no word from {addresses}", reason=Reason.NO_BROKER)
        trouble = self._connections.trouble
        if lasted_s >= _ALONE_S and self._episodes.failed("broker", nobody, now_s, at_once=True):
            _log.warning(
                "nothing can be read, still trying: no broker at %s for %.1f s; that no records come "
                "does not say that there are none%s", addresses, lasted_s, trouble and f"; {trouble}",
            )  # fmt: skip

    def check(self, error: RetriableError, stream: SubscribeStream | None) -> None:
        """Give up where nothing has been heard for the request timeout, and that is not to be borne.

        A consumer without an end waits for its brokers for ever. One that is to begin, or to come to
        an end, has somebody waiting for it.

        Args:
            error: what a stream broke of, or why there is none.
            stream: the one that broke.

        Raises:
            RiverrunError: this is the end.
        """
        now_s, limit_s = asyncio.get_running_loop().time(), self._connections.request_timeout_s
        if stream is not None and stream.frames:
            self._heard_s = now_s
        if now_s - self._heard_s < limit_s or self.open > (stream is not None):
            return
        if not self.begun:
            raise error
        if self._stop_at_end:
            final = copy.copy(error)
            final.message = (
                f"gave up waiting for the end after {limit_s:g} s without a word from any broker "
                f"(request_timeout_s): {error.message}"
            )
            raise final
