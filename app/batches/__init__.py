"""Batches: one file of lines, run at every provider that its models are at, and one file of answers."""
