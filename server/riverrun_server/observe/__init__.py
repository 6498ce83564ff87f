"""What an operator sees of a broker: its log and its metrics."""
