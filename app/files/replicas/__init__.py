"""A file at one account: its row is the to-do list of whatever is still to be done for it there."""
