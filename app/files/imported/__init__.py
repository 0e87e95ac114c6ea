"""Files of another gateway: its rows read, ours made of them; the bytes stay where they are at the providers."""
