"""What an operator does about a metric, where there is something to do; the page of metrics shows it."""

from __future__ import annotations

from typing import Final

ADVICE: Final[dict[str, str]] = {
    "riverrun_rpc_calls_total": (
        "Calls that end UNAVAILABLE, INTERNAL or DATA_LOSS are the broker's fault; "
        "`riverrun_refusals_total` has the reasons."
    ),
    "riverrun_rpc_seconds": (
        "For Produce, look where the time goes: `riverrun_sync_wait_seconds`, "
        "`riverrun_sync_seconds`, writes of the store, `riverrun_loop_lag_seconds`. A Fetch waits "
        "for data by design."
    ),
    "riverrun_refusals_total": (
        "INTERNAL, CORRUPT_DATA and STORAGE_FAILED want a person at once, STORAGE_FULL room on the "
        "disk, STORAGE_STALLED a faster disk. INVALID and NOT_FOUND reasons are for the clients' "
        "owners. Each reason is explained in errors.proto."
    ),
    "riverrun_limit_reached_total": (
        "Raise `limits` in the settings where the clients are right to want more; else find the "
        "client in the log by `peer`."
    ),
    "riverrun_in_flight_bytes": (
        "Near `limits.max_in_flight_bytes` for long: the disk is slower than the producers."
    ),
    "riverrun_topic_delivered_bytes_total": (
        "Much from `disk` in normal running: readers have fallen behind the memory; raise "
        "`storage.hot_tail_bytes` or look at the readers."
    ),
    "riverrun_partitions": "Any offline: see `riverrun topic describe` and `riverrun-server recover`.",
    "riverrun_sync_wait_seconds": (
        "Well above `riverrun_sync_seconds`: the event loop is busy, see "
        "`riverrun_loop_lag_seconds`."
    ),
    "riverrun_sync_seconds": (
        "The 99th percentile is what an acknowledged append waits at least. Above 0.1 s the disk is "
        "overloaded, shared with others, or no local one."
    ),
    "riverrun_disk_free_bytes": (
        "Add space, shorten retention or trim topics before it falls below "
        "`storage.disk_low_water_bytes`."
    ),
    "riverrun_disk_full": (
        "1: producers are refused with STORAGE_FULL until `storage.disk_high_water_bytes` are free."
    ),
    "riverrun_store_write_amplification_ratio": (
        "Growing: more partitions than `storage.slots` share slots, or batches are tiny."
    ),
    "riverrun_store_stall_seconds_total": "Growing: the disk does not keep up with what is written.",
    "riverrun_store_write_stopped": "1 for more than moments: as `riverrun_store_stall_seconds_total`.",
    "riverrun_store_unsynced_writes": (
        "Growing without end: a sync hangs; `/livez` fails after a minute and the broker should be "
        "restarted, on another disk if it comes back."
    ),
    "riverrun_unclean_recoveries": (
        "Not 0: acknowledged records of topics with fsync=relaxed may be lost; their owners should "
        "know."
    ),
    "riverrun_orphan_partitions": (
        "Not 0: the data directory is older or newer than its metadata; nothing is deleted, find "
        "out which was restored."
    ),
    "riverrun_metadata_followed": (
        "0 for minutes: the log has `metadata cannot be listed` with the reason; records go on, topics "
        "cannot be made or changed."
    ),
    "riverrun_unclean_elections_total": (
        "Any: acknowledged records may be lost, as `unclean.recovery=accept` of their topics allows; the "
        "log names the partitions, and their owners should know."
    ),
    "riverrun_fenced_brokers_total": (
        "Growing without brokers that end: they lose etcd, or their machines pause; compare their logs."
    ),
    "riverrun_isr_shrinks_total": (
        "Growing while no broker ends: a follower's disk or network does not keep up; "
        "`riverrun cluster describe` names the partitions."
    ),
    "riverrun_under_replicated_partitions": (
        "Not 0 for minutes: a broker is away or behind. Its partitions are safe as long as "
        "`riverrun_under_min_isr_partitions` is 0."
    ),
    "riverrun_under_min_isr_partitions": (
        "Not 0: producers of acks=all are refused with NOT_ENOUGH_REPLICAS. Bring the brokers back that "
        "are away."
    ),
    "riverrun_replica_lag_records": (
        "Growing while a broker catches up is normal; growing for long: it never will at this rate."
    ),
    "riverrun_controller": (
        "The sum over all brokers is 1; 0 for more than seconds: nobody reaches etcd, and no broker "
        "that dies is replaced."
    ),
    "riverrun_offline_partitions": (
        "Not 0: everyone who has all data of a partition is away or damaged. `riverrun topic describe` "
        "says who; bring one of them back."
    ),
    "riverrun_retention_failures_total": "Growing: the log has `retention failed` with the reason.",
    "riverrun_retention_paused_partitions": (
        "Not 0: check the machine's clock, then start once with `confirm_clock`; the disk fills "
        "meanwhile."
    ),
    "riverrun_retention_looked_timestamp_seconds": (
        "Older than a few of `retention.check_interval_s`: retention hangs behind the disk."
    ),
    "riverrun_clock_behind_wall_seconds": (
        "Not 0: somebody set the machine's clock. Records are stamped by the old time until the "
        "broker is restarted; check the clock first."
    ),
    "riverrun_loop_lag_seconds": (
        "Above 0.1 s: the broker is out of CPU, or a bug blocks it; the log has `event loop was "
        "late`. `/livez` fails after 15 s."
    ),
    "riverrun_task_crashes_total": "Any: a bug, with a traceback in the log; report it.",
    "process_open_fds": (
        "Near `process_max_fds`: raise the limit of open files; each table and connection takes one."
    ),
}
