"""What a gateway decides: which leader an append goes to, and when nobody knows what became of it."""
