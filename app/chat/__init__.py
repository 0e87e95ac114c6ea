"""Chat completions that mention files."""
