"""What the coordinator of a group knows: pure machines over the internal offsets topic."""
