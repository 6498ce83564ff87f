"""Pure parts of the client: encoding, batching, routing, backoff."""
