"""Fetch: one long poll over explicit positions; what concerns one partition fails that one only."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from riverrun.v1.consumer_pb2 import FetchRequest
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import Delivery, PartitionFailed
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Position
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.rpc.reading_plans import places_of
from riverrun_server.rpc.reading_requests import (
    check_count,
    check_not_negative,
    form_of,
    frame_room,
    partition_name,
    place_of_position,
    seconds_of,
)
from riverrun_server.runtime.delivery_room import CURRENT
from riverrun_server.runtime.fetch import Fetch
from riverrun_server.runtime.fetch_terms import FetchTerms
from riverrun_server.runtime.places import Wanted
from riverrun_server.runtime.reader import ReadingServices
from riverrun_server.wire.deliveries import fetch_response


class Fetcher:
    """Serves Fetch.

    Args:
        services: what all readers share.
    """

    def __init__(self, services: ReadingServices) -> None:
        self._services = services
        # Who is asked first changes from call to call, so that a full answer starves nobody.
        self._turn = itertools.count()
        self._waiting_now = 0

    async def fetch(self, request: FetchRequest) -> bytes:
        """Return a serialised FetchResponse.

        Raises:
            Refusal: the request is wrong as a whole, or the group's offsets are not known yet.
        """
        services = self._services
        form = form_of(request.form, request.accept_codecs)
        terms = self._terms(request, services.limits)
        wanted, failures = self._wanted(request)
        places = await places_of(wanted, services.offsets, request.group_id)
        accesses: list[PartitionAccess] = []
        positions: list[Position] = []
        for each, place in zip(wanted, places, strict=True):
            if isinstance(place, Refusal):
                failures.append(_failed(each.access, place))
            else:
                accesses.append(each.access)
                positions.append(place)
        if failures:
            # Whoever is to be told of a failure is not kept waiting for more.
            terms = FetchTerms(
                min_bytes=1, max_bytes=terms.max_bytes, max_wait_s=0, turn=terms.turn
            )
        deliveries: list[Delivery] = []
        if positions:
            fetch = Fetch(services.threads, services.limits, form, terms, CURRENT.get(None))
            with self._waiting(terms):
                answers = await fetch.run(accesses, positions)
            for access, answer in zip(accesses, answers, strict=True):
                if isinstance(answer, Refusal):
                    failures.append(_failed(access, answer))
                else:
                    deliveries.append(answer)
        return fetch_response(deliveries, form.tag, failures, services.write_error)

    @contextlib.contextmanager
    def _waiting(self, terms: FetchTerms) -> Iterator[None]:
        """Hold one place among those that wait.

        Raises:
            Refusal: OVERLOADED; else whoever waits for nothing could keep all others from calling.
        """
        waits, limit = bool(terms.max_wait_s), self._services.limits.fetches_waiting
        if waits and self._waiting_now >= limit:
            raise Refusal(
                Reason.OVERLOADED,
                f"{self._waiting_now} calls of Fetch wait for records and {limit} may "
                "(half of limits.max_calls); ask without max_wait, or Subscribe",
            )
        self._waiting_now += waits
        try:
            yield
        finally:
            self._waiting_now -= waits

    def _terms(self, request: FetchRequest, limits: ReadingLimits) -> FetchTerms:
        check_not_negative("min_bytes", request.min_bytes)
        check_not_negative("max_bytes", request.max_bytes)
        max_bytes = frame_room(request.max_bytes, limits)
        return FetchTerms(
            min_bytes=min(max(1, request.min_bytes), max_bytes),
            max_bytes=max_bytes,
            max_wait_s=min(seconds_of("max_wait", request.max_wait), limits.fetch_wait_s_max),
            turn=next(self._turn),
        )

    def _wanted(self, request: FetchRequest) -> tuple[list[Wanted], list[PartitionFailed]]:
        if not request.positions:
            raise Refusal(
                Reason.INVALID_REQUEST, "the request names nothing to read; set `positions`"
            )
        check_count("positions", len(request.positions), self._services.limits)
        if request.group_id:
            check_group_id(request.group_id)
        seen: set[PartitionId] = set()
        wanted: list[Wanted] = []
        failures: list[PartitionFailed] = []
        for position in request.positions:
            place = place_of_position(position, request.group_id)
            name = partition_name(position)
            try:
                access = self._services.directory.partition(*name)
            except Refusal as refusal:
                failures.append(PartitionFailed(*name, refusal))
                continue
            if access.id in seen:
                raise Refusal(
                    Reason.INVALID_REQUEST,
                    f"partition {access.id.partition} of topic {access.topic!r} is named twice; "
                    "name each once",
                )
            seen.add(access.id)
            wanted.append(Wanted(access.direct() if request.do_not_proxy else access, place))
        return wanted, failures


def _failed(access: PartitionAccess, refusal: Refusal) -> PartitionFailed:
    return PartitionFailed(access.topic, *access.id, refusal)
