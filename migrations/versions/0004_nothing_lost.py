"""Replicas that are made again, replicas whose account is gone, idempotency keys; and views that show them.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FILE_MAPPINGS = """
CREATE OR REPLACE VIEW file_mappings AS
SELECT f.id AS file_id,
       f.filename,
       f.purpose,
       f.bytes,
       f.mime_type,
       f.sha256,
       t.name AS team,
       coalesce(f.created_by, 'master key') AS created_by,
       ft.model_name,
       r.provider,
       ft.account,
       r.provider_file_id,
       r.state,
       coalesce(r.attempts, 0) AS attempts,
       r.last_error,
       f.created_at,
       r.stored_at,
       least(f.expires_at, r.expires_at) AS expires_at
FROM files f
JOIN teams t ON t.id = f.team_id
JOIN file_targets ft ON ft.file_id = f.id
LEFT JOIN LATERAL (
    SELECT r.provider, r.provider_file_id, r.state, r.attempts, r.last_error, r.stored_at, r.expires_at
    FROM replicas r
    WHERE r.file_id = f.id AND r.account = ft.account
    ORDER BY (r.state = 'deleting'){refreshed_last}, r.id DESC
    LIMIT 1
) r ON true
"""

REPLICA_BACKLOG = """
CREATE OR REPLACE VIEW replica_backlog AS
SELECT r.file_id,
       t.name AS team,
       r.provider,
       r.account,
       r.provider_file_id,
       r.state,
       r.due_at,
       r.attempts,
       r.last_error,
       r.created_at{blocked}
FROM replicas r
JOIN files f ON f.id = r.file_id
JOIN teams t ON t.id = f.team_id
WHERE r.state IN ('pending', 'processing', 'deleting'){retried}
"""

SOURCE_BACKLOG = """
CREATE VIEW source_backlog AS
SELECT f.id AS file_id,
       t.name AS team,
       f.source,
       f.state,
       f.due_at,
       f.attempts,
       f.last_error,
       f.created_at
FROM files f
JOIN teams t ON t.id = f.team_id
WHERE f.source IS NOT NULL AND f.state <> 'ready'
"""

# Where the role could not be made, there is nothing to grant to.
GRANT = """
DO $$
BEGIN
    GRANT SELECT ON {view} TO filemux_readonly;
EXCEPTION
    WHEN insufficient_privilege OR undefined_object THEN
        RAISE WARNING 'filemux_readonly may not read {view}: %', SQLERRM;
END
$$
"""


def upgrade() -> None:
    op.add_column("replicas", sa.Column("blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("replicas", sa.Column("looks", sa.Integer(), server_default="0", nullable=False))
    op.add_column("replicas", sa.Column("replaces", sa.Text(), nullable=True))
    op.add_column("replicas", sa.Column("used_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_replicas_file_id_account", table_name="replicas")
    op.create_index(
        "ix_replicas_file_id_account",
        "replicas",
        ["file_id", "account"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleting' AND replaces IS NULL"),
    )
    op.create_index(
        "ix_replicas_replaces",
        "replicas",
        ["replaces"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleting' AND replaces IS NOT NULL"),
    )
    op.create_index(
        "ix_replicas_expires_at",
        "replicas",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('stored', 'processing') AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_replicas_account_blocked", "replicas", ["account"], unique=False, postgresql_where=sa.text("blocked")
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("team_id", sa.Text(), sa.ForeignKey("teams.id"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_subject", "idempotency_keys", ["subject"])
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
    op.execute(FILE_MAPPINGS.format(refreshed_last=", (r.replaces IS NOT NULL)"))
    retried = " OR (r.state = 'failed' AND r.due_at IS NOT NULL)"
    op.execute(REPLICA_BACKLOG.format(blocked=",\n       r.blocked", retried=retried))
    op.execute(SOURCE_BACKLOG)
    op.execute(GRANT.format(view="source_backlog"))


def downgrade() -> None:
    op.execute("DROP VIEW source_backlog")
    op.execute("DROP VIEW replica_backlog")
    op.execute(REPLICA_BACKLOG.format(blocked="", retried=""))
    op.execute(GRANT.format(view="replica_backlog"))
    op.execute(FILE_MAPPINGS.format(refreshed_last=""))
    op.drop_table("idempotency_keys")
    op.drop_index("ix_replicas_account_blocked", table_name="replicas")
    op.drop_index("ix_replicas_expires_at", table_name="replicas")
    op.drop_index("ix_replicas_replaces", table_name="replicas")
    op.drop_index("ix_replicas_file_id_account", table_name="replicas")
    # What was to take another's place is looked for by the older version too, as a replica of its own being deleted.
    op.execute("UPDATE replicas SET state = 'deleting', due_at = now() WHERE replaces IS NOT NULL")
    op.create_index(
        "ix_replicas_file_id_account",
        "replicas",
        ["file_id", "account"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleting'"),
    )
    for column in ("used_at", "replaces", "looks", "blocked"):
        op.drop_column("replicas", column)
