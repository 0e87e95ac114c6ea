"""Direct batches: one batch at one account, of which no row is made. Its id says where it is: a sealed one, or, for
keys with the permission provider_files, the provider's own."""
