"""`riverrun topic`: the commands that make, look at, change and delete topics."""

from __future__ import annotations

from riverrun.cli.groups import Group, Late

topic = Group(
    name="topic",
    short_help="Make, look at, change and delete topics.",
    help="Make, look at, change and delete topics.",
    late={
        "create": Late("riverrun.cli.topic_change:create", "Make a topic."),
        "list": Late("riverrun.cli.topic_show:list_topics", "List topics by name."),
        "describe": Late("riverrun.cli.topic_show:describe", "Tell everything about a topic."),
        "alter": Late("riverrun.cli.topic_change:alter", "Change a topic's configuration."),
        "add-partitions": Late(
            "riverrun.cli.topic_change:add_partitions", "Give a topic more partitions."
        ),
        "offsets": Late("riverrun.cli.topic_show:offsets", "Tell where partitions begin and end."),
        "trim": Late("riverrun.cli.topic_remove:trim", "Delete the records before a place."),
        "delete": Late("riverrun.cli.topic_remove:delete", "Delete a topic and its records."),
    },
)
