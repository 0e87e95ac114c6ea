"""Batches: how far each is, its parts at the providers, what a batch file holds; and ids that files had elsewhere.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BATCH_MAPPINGS = """
CREATE VIEW batch_mappings AS
SELECT b.id AS batch_id,
       b.status,
       t.name AS team,
       coalesce(b.created_by, 'master key') AS created_by,
       b.input_file_id,
       b.output_file_id,
       p.model_name,
       p.provider,
       p.account,
       p.provider_batch_id,
       p.state,
       p.lines,
       p.completed,
       p.failed,
       coalesce(p.last_error, b.last_error) AS last_error,
       b.created_at,
       b.due_at,
       b.attempts
FROM batches b
JOIN teams t ON t.id = b.team_id
LEFT JOIN batch_parts p ON p.batch_id = b.id
"""

# Where the role could not be made, there is nothing to grant to.
GRANT = """
DO $$
BEGIN
    GRANT SELECT ON batch_mappings TO filemux_readonly;
EXCEPTION
    WHEN insufficient_privilege OR undefined_object THEN
        RAISE WARNING 'filemux_readonly may not read batch_mappings: %', SQLERRM;
END
$$
"""

JSONB = postgresql.JSONB(astext_type=sa.Text())
MOMENTS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def upgrade() -> None:
    op.add_column("files", sa.Column("batch_lines", JSONB, nullable=True))
    op.add_column("files", sa.Column("imported_id", sa.Text(), nullable=True))
    op.add_column("replicas", sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_files_imported_id",
        "files",
        ["imported_id"],
        unique=True,
        postgresql_where=sa.text("imported_id IS NOT NULL"),
    )
    for column in (
        sa.Column("lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("completed_lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed_lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("errors", JSONB, nullable=True),
        sa.Column("usage", JSONB, nullable=True),
        sa.Column("output_expires_after_seconds", sa.Integer(), nullable=True),
        *(sa.Column(f"{name}_at", sa.DateTime(timezone=True), nullable=True) for name in MOMENTS),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease", sa.Text(), nullable=True),
    ):
        op.add_column("batches", column)
    # A file is looked for at all accounts of a provider: one of them may have had another name.
    op.create_index("ix_replicas_provider_file_id", "replicas", ["provider_file_id"])
    op.drop_index("ix_replicas_account_provider_file_id", table_name="replicas")
    op.create_table(
        "batch_parts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("provider_model", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("line_models", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("options", JSONB, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("input_names", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("input_provider_file_ids", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("provider_batch_id", sa.Text(), nullable=True),
        sa.Column("surplus_batch_ids", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("result_ids", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("custom_ids", sa.LargeBinary(), nullable=True),
        sa.Column("creating_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'uploading', 'uploaded', 'creating', 'running', 'ended', 'refused', 'gone')",
            name=op.f("ck_batch_parts_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_parts")),
    )
    op.create_index("ix_batch_parts_batch_id", "batch_parts", ["batch_id"])
    op.create_index(
        "ix_batch_parts_account_provider_batch_id", "batch_parts", ["account", "provider_batch_id"], unique=True
    )
    for column in ("input_names", "input_provider_file_ids", "result_ids"):
        op.create_index(f"ix_batch_parts_{column}", "batch_parts", [column], postgresql_using="gin")
    op.execute(BATCH_MAPPINGS)
    op.execute(GRANT)


def downgrade() -> None:
    op.execute("DROP VIEW batch_mappings")
    op.drop_table("batch_parts")
    op.create_index("ix_replicas_account_provider_file_id", "replicas", ["account", "provider_file_id"])
    op.drop_index("ix_replicas_provider_file_id", table_name="replicas")
    columns = (
        "lease",
        "looked_at",
        "store",
        *(f"{name}_at" for name in reversed(MOMENTS)),
        "output_expires_after_seconds",
    )
    for column in (*columns, "usage", "errors", "failed_lines", "completed_lines", "lines"):
        op.drop_column("batches", column)
    op.drop_index("ix_files_imported_id", table_name="files")
    op.drop_column("replicas", "lost_at")
    op.drop_column("files", "imported_id")
    op.drop_column("files", "batch_lines")
