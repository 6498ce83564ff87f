"""Which member of a group should have which partitions: pure functions of who subscribes to what."""
