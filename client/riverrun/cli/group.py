"""`riverrun group`: how far groups have come, and moving them elsewhere."""

from __future__ import annotations

from riverrun.cli.groups import Group, Late

group = Group(
    name="group",
    short_help="Look at the committed offsets of groups, and reset them.",
    help="Look at the committed offsets of groups, and reset them.",
    late={
        "describe": Late("riverrun.cli.group_show:describe", "Tell how far a group has come."),
        "reset-offsets": Late(
            "riverrun.cli.group_reset:reset_offsets", "Move a group to another place."
        ),
    },
)
