"""`riverrun cluster`: the commands that look at brokers, elect leaders and drain brokers."""

from __future__ import annotations

from riverrun.cli.groups import Group, Late

cluster = Group(
    name="cluster",
    short_help="Look at the brokers, elect leaders, drain a broker.",
    help="Look at the brokers, elect leaders, drain a broker.",
    late={
        "describe": Late(
            "riverrun.cli.cluster_show:describe", "Tell the brokers and how partitions are."
        ),
        "elect-leaders": Late(
            "riverrun.cli.cluster_elect:elect_leaders", "Give partitions their preferred leaders."
        ),
        "drain": Late("riverrun.cli.cluster_drain:drain", "Take a broker out of service."),
    },
)
