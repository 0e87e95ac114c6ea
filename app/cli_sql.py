"""`filemux sql` and `backlog`: the views, from the command line."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli_database import config_option, json_option, with_database
from app.db import readonly
from app.printing import show

# Of batches, those that something stands in the way of: a batch that runs is due all the time.
BACKLOG = """
SELECT file_id, NULL AS batch_id, team, provider, account, provider_file_id AS provider_id, state, due_at, attempts,
       last_error, created_at, blocked
FROM replica_backlog
UNION ALL
SELECT input_file_id, batch_id, team, provider, account, provider_batch_id, state, due_at, attempts,
       last_error, created_at, false
FROM batch_mappings
WHERE due_at IS NOT NULL AND attempts > 0 AND last_error IS NOT NULL AND state <> 'gone'
ORDER BY blocked DESC, due_at
"""


@click.command()
@click.argument("statement")
@config_option
@json_option
def sql(statement: str, config: Path | None, as_json: bool) -> None:
    """Run one SELECT on the views, as the role that may read them and nothing else."""
    columns, rows = with_database(config, lambda database: readonly.select(database, statement))
    show(columns, rows, as_json)


@click.command()
@config_option
@json_option
def backlog(config: Path | None, as_json: bool) -> None:
    """Show what is still to be done for replicas and batches, and why it was not done yet."""
    columns, rows = with_database(config, lambda database: readonly.select(database, BACKLOG))
    show(columns, rows, as_json)
