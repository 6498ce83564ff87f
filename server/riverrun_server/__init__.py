"""The Riverrun broker."""
