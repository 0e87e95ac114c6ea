"""Who calls: keys and teams, roles and allow-lists, and the record of what admins did."""
