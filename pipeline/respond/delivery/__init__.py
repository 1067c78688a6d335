"""How what is told reaches its endpoints: queues, channels, addresses that are allowed."""
