"""Waits until this broker knows every topic that the metadata store knows."""

from __future__ import annotations

from riverrun_server.core.cluster import keys
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.metadata import MetadataError, MetadataStore
from riverrun_server.runtime.metadata_feed import Applied


class TopicsCaughtUp:
    """Asks the store itself, for what a broker follows may be behind.

    Args:
        store: of metadata.
        applied: moves on once changes have taken effect here.
    """

    def __init__(self, store: MetadataStore, applied: Applied) -> None:
        self._store = store
        self._applied = applied

    async def __call__(self) -> None:
        """Return once every topic is known here that was made before the call.

        Raises:
            Refusal: NOT_READY, the store does not answer; SHUTTING_DOWN.
        """
        try:
            listing = await self._store.scan(keys.TOPICS)
        except MetadataError as error:
            raise Refusal(
                Reason.NOT_READY,
                f"the metadata store does not tell which topics there are ({error}); ask again",
            ) from error
        newest = max((entry.mod_revision for entry in listing.entries), default=0)
        if not await self._applied.reached(newest):
            raise Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down; ask again")
