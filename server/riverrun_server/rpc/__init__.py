"""The public services, one file each."""
