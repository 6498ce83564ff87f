"""`riverrun perf`: measure what a cluster, this machine and this client do together."""

from __future__ import annotations

from riverrun.cli.groups import Group, Late

perf = Group(
    name="perf",
    short_help="Measure throughput and latency.",
    help="Measure throughput and latency. The last line on standard output is a JSON object.",
    late={
        "produce": Late("riverrun.cli.perf_produce:produce", "Measure writing."),
        "consume": Late("riverrun.cli.perf_consume:consume", "Measure reading."),
        "latency": Late("riverrun.cli.perf_latency:latency", "Measure from writing to reading."),
    },
)
