"""`riverrun group`: who is in groups, how far they have come, and moving them elsewhere."""

from __future__ import annotations

from riverrun.cli.groups import Group, Late

group = Group(
    name="group",
    short_help="Look at groups and their committed offsets, and move them.",
    help="Look at groups and their committed offsets, and move them.",
    late={
        "delete": Late(
            "riverrun.cli.group_remove:delete", "Delete a group and its committed offsets."
        ),
        "describe": Late(
            "riverrun.cli.group_show:describe", "Tell who is in a group, and how far it has come."
        ),
        "list": Late("riverrun.cli.group_show:list_groups", "List groups by name."),
        "remove-member": Late(
            "riverrun.cli.group_remove:remove_member", "Throw a member out of a group."
        ),
        "reset-offsets": Late(
            "riverrun.cli.group_reset:reset_offsets", "Move a group to another place."
        ),
    },
)
