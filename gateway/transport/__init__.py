"""Between protocols and asyncio: framing, turns, timeouts, streams as connections."""
