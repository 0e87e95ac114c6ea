"""Where the bytes of a file are kept, and what is due for them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("files", sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("files", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("files", sa.Column("last_error", sa.Text(), nullable=True))
    op.create_index(
        op.f("ix_files_due_at"), "files", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_files_due_at"), table_name="files")
    for column in ("last_error", "attempts", "due_at", "source"):
        op.drop_column("files", column)
