"""What the rows know of accounts: their replicas, and what waits for one that left the configuration."""
