"""Partitions led by other brokers, served as if they were led here."""
