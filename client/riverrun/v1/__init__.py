"""The public API as generated from proto/riverrun/v1."""
