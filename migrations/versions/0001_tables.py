"""The tables, and the team that the master key belongs to.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_subject"), "audit_log", ["subject"], unique=False)
    op.create_table(
        "teams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("default_target_model_names", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name", name=op.f("uq_teams_name")),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("secret_hint", sa.Text(), nullable=False),
        sa.Column("models", sa.ARRAY(sa.Text()), nullable=True),
        sa.Column("permissions", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'member', 'viewer')", name=op.f("ck_keys_role")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_keys_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_keys_secret_sha256")),
    )
    op.create_index(op.f("ix_keys_team_id_id"), "keys", ["team_id", "id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["created_by"], ["keys.id"], name=op.f("fk_batches_created_by_keys")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_batches_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("error_file_id", name=op.f("uq_batches_error_file_id")),
        sa.UniqueConstraint("output_file_id", name=op.f("uq_batches_output_file_id")),
    )
    op.create_index(
        op.f("ix_batches_due_at"),
        "batches",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_batches_team_id_id"), "batches", ["team_id", "id"], unique=False)
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("upload_policy", sa.Text(), server_default="all", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('uploading', 'ready', 'failed', 'deleting')", name=op.f("ck_files_state")),
        sa.CheckConstraint("upload_policy IN ('all', 'any')", name=op.f("ck_files_upload_policy")),
        sa.ForeignKeyConstraint(["created_by"], ["keys.id"], name=op.f("fk_files_created_by_keys")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_files_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index(
        op.f("ix_files_expires_at"),
        "files",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'ready' AND expires_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_files_team_id_id"),
        "files",
        ["team_id", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_index(
        op.f("ix_files_team_id_purpose_id"),
        "files",
        ["team_id", "purpose", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_table(
        "file_targets",
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["file_id"], ["files.id"], name=op.f("fk_file_targets_file_id_files"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("file_id", "model_name", "account", name=op.f("pk_file_targets")),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_file_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("suspects", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'processing', 'stored', 'failed', 'deleting')",
            name=op.f("ck_replicas_state"),
        ),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_replicas_file_id_files")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.create_index(
        op.f("ix_replicas_account_provider_file_id"),
        "replicas",
        ["account", "provider_file_id"],
        unique=False,
    )
    op.create_index("ix_replicas_file_id", "replicas", ["file_id"], unique=False)
    op.create_index(
        op.f("ix_replicas_file_id_account"),
        "replicas",
        ["file_id", "account"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleting'"),
    )
    op.create_index(
        op.f("ix_replicas_state_due_at"),
        "replicas",
        ["state", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )

    op.execute("INSERT INTO teams (id, name) VALUES ('team-default', 'default')")


def downgrade() -> None:

    op.drop_index(
        op.f("ix_replicas_state_due_at"),
        table_name="replicas",
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.drop_index(
        op.f("ix_replicas_file_id_account"),
        table_name="replicas",
        postgresql_where=sa.text("state <> 'deleting'"),
    )
    op.drop_index("ix_replicas_file_id", table_name="replicas")
    op.drop_index(op.f("ix_replicas_account_provider_file_id"), table_name="replicas")
    op.drop_table("replicas")
    op.drop_table("file_targets")
    op.drop_index(op.f("ix_files_team_id_purpose_id"), table_name="files", postgresql_where=sa.text("state = 'ready'"))
    op.drop_index(op.f("ix_files_team_id_id"), table_name="files", postgresql_where=sa.text("state = 'ready'"))
    op.drop_index(
        op.f("ix_files_expires_at"),
        table_name="files",
        postgresql_where=sa.text("state = 'ready' AND expires_at IS NOT NULL"),
    )
    op.drop_table("files")
    op.drop_index(op.f("ix_batches_team_id_id"), table_name="batches")
    op.drop_index(op.f("ix_batches_due_at"), table_name="batches", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_table("batches")
    op.drop_index(op.f("ix_keys_team_id_id"), table_name="keys")
    op.drop_table("keys")
    op.drop_table("teams")
    op.drop_index(op.f("ix_audit_log_subject"), table_name="audit_log")
    op.drop_table("audit_log")
