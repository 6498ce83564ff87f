"""Streams, retry and routing of the client."""
