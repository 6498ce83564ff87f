"""Partitions and tables on RocksDB, and their twin in memory."""
