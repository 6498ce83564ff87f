"""What `doctor` looks at: addresses, those that brokers give too, and what brokers say of themselves."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Literal

from riverrun import Client, RiverrunError, ServerInfo
from riverrun.cli.broker_checks import check_disk, check_open_files
from riverrun.cli.cluster_checks import check_cluster
from riverrun.cli.finding import Finding
from riverrun.cli.partition_checks import check_partitions
from riverrun.cli.settings import Settings
from riverrun.cli.tables import shown_bytes

CONNECT_TIMEOUT_S = 5.0
CLOCK_OFF_S_MAX = 1.0
"""Further apart, records of this machine and of the broker are hard to bring into order."""
UNREACHABLE = {
    "address": "start a broker there (riverrun-server run), or give another --bootstrap",
    "advertised": "let the broker give clients an address that they reach (--advertise)",
}
UNTUNED_MESSAGE_BYTES = 4 * 1024 * 1024
"""What a gRPC client accepts unless it is told to accept more."""


async def examine(chosen: Settings) -> list[Finding]:
    """Check everything, as far as what was found lets it go on."""
    findings = []
    for address in chosen.bootstrap.split(","):
        reachable = await check_address("address", address.strip())
        findings.append(reachable)
        if reachable.state == "ok":
            findings += await check_broker(address.strip(), chosen)
    return findings


async def check_address(check: Literal["address", "advertised"], address: str) -> Finding:
    """Resolve an address and connect to it."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        return Finding(check, "failed", f"{address!r} is not HOST:PORT", "correct --bootstrap")
    began = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (socket.gaierror, UnicodeError) as error:
        return Finding(check, "failed", f"{host} does not resolve: {error}", "check name and DNS")
    except TimeoutError:
        found = f"{address} does not answer within {CONNECT_TIMEOUT_S:.0f} s"
        return Finding(check, "failed", found, "check firewalls and routes to it")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        return Finding(check, "failed", f"{address} cannot be reached: {why}", UNREACHABLE[check])
    writer.close()
    return Finding(check, "ok", f"{address} answers in {1000 * (time.monotonic() - began):.1f} ms")


async def check_broker(address: str, chosen: Settings) -> list[Finding]:
    """Ask the broker at an address about itself."""
    timeout_s = chosen.timeout_s or CONNECT_TIMEOUT_S
    try:
        async with Client(
            address, connect_timeout_s=timeout_s, request_timeout_s=timeout_s
        ) as client:
            await client.server_info()  # connects, so that the next one measures the way alone
            before_ms = time.time() * 1000
            began = time.monotonic()
            info = await client.server_info()
            trip_ms = (time.monotonic() - began) * 1000
            cluster = await client.admin().cluster()
            partitions = await check_partitions(client.admin())
            replicas = await check_cluster(client.admin())
    except RiverrunError as error:
        advice = (
            "give the address of the broker's line `ready clients=…`; a broker that is starting "
            "answers a little later; and listeners must be plaintext"
        )
        return [Finding("broker", "failed", error.message, advice)]
    endpoints = (broker.endpoint for broker in cluster.brokers)
    return [
        check_version(info.version, version("riverrun")),
        check_clock(info.now_ms, before_ms, trip_ms, info.limits.timestamp_ahead_max_s),
        check_limits(info),
        *check_disk(info.storage),
        *check_open_files(info.open_files_limit),
        *partitions,
        *replicas,
        *[await check_address("advertised", endpoint) for endpoint in _others(endpoints, address)],
    ]


def check_version(broker: str, client: str) -> Finding:
    """Compare versions: the first number, and before 1.0 the second, may change what is spoken."""
    found = f"broker {broker}, client {client}"
    if _compatible_part(broker) == _compatible_part(client):
        return Finding("version", "ok", found)
    return Finding("version", "warning", found, "upgrade the older of the two")


def check_clock(broker_ms: float, before_ms: float, trip_ms: float, ahead_max_s: float) -> Finding:
    """Compare clocks; half of the round trip is what the comparison cannot know."""
    off_s = (broker_ms - (before_ms + trip_ms / 2)) / 1000
    doubt_s = trip_ms / 2000
    word = "ahead of" if off_s > 0 else "behind"
    found = f"the broker is {abs(off_s):.3f} s {word} this machine (± {doubt_s:.3f} s)"
    certain_s = abs(off_s) - doubt_s
    advice = "let NTP or chrony set both clocks"
    if off_s < 0 and ahead_max_s and certain_s > ahead_max_s:
        refused = f"; records stamped here are refused beyond {ahead_max_s:.0f} s"
        return Finding("clock", "failed", found + refused, advice)
    if certain_s > CLOCK_OFF_S_MAX:
        return Finding("clock", "warning", found, advice)
    return Finding("clock", "ok", found)


def check_limits(info: ServerInfo) -> Finding:
    """Tell the bounds that people meet, and whether an untuned gRPC client can read."""
    limits = info.limits
    found = (
        f"batches to {shown_bytes(limits.max_batch_bytes)} and {limits.max_batch_records:,} records, "
        f"requests to {shown_bytes(limits.max_request_bytes)}, "
        f"frames to {shown_bytes(limits.max_frame_bytes)}"
    )
    if limits.max_frame_bytes > UNTUNED_MESSAGE_BYTES:
        advice = (
            "other gRPC clients must accept messages of more than "
            f"{shown_bytes(UNTUNED_MESSAGE_BYTES)}, or lower the broker's limit"
        )
        return Finding("limits", "warning", found, advice)
    return Finding("limits", "ok", found)


def _compatible_part(text: str) -> tuple[str, ...]:
    """Keep of a version what two of them must share to understand each other."""
    parts = text.split(".")
    return tuple(parts[:2] if parts[0] == "0" else parts[:1])


def _others(endpoints: Iterable[str], address: str) -> list[str]:
    """List the addresses that brokers give to clients, but not the one that was used."""
    return [endpoint for endpoint in dict.fromkeys(endpoints) if endpoint != address]
