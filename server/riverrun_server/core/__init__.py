"""Pure machines: every decision of the broker, without clock, loop, wire or disk."""
