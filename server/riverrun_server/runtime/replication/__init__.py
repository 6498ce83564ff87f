"""Replicas of partitions over a log: written, synced, ticked, without a loop of their own."""
