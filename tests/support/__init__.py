"""What the tests drive: real processes, and what they are told to do."""
