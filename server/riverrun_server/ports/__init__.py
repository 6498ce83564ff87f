"""The seams: what the drivers need from clock, dice, disk, metadata store and other brokers."""
