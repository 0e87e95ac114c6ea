"""Files at a provider that may be what a lost upload has left: an operator says what they are."""
