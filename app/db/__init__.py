"""PostgreSQL: tables, sessions, due rows claimed under a lease, caches kept true by NOTIFY, the embedded server."""
