"""Event streaming behind a gRPC API: the client library."""
