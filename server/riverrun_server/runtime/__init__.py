"""asyncio drivers of the machines in core."""
