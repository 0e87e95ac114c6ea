"""The schema, as docs/sql.md describes it to operators. The views are in the migrations.

Ids are made by the application (`app.ids`). Deletes are explicit: a row goes when its provider file is gone.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DEFAULT_TEAM_ID = "team-default"

_moment = DateTime(timezone=True)
_ROLES = "'admin', 'member', 'viewer'"
_POLICIES = "'all', 'any'"
_FILE_STATES = "'uploading', 'ready', 'failed', 'deleting'"
_PART_STATES = "'waiting', 'uploading', 'uploaded', 'creating', 'running', 'ended', 'refused', 'gone'"
_BATCH_MOMENTS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_REPLICA_STATES = "'pending', 'processing', 'stored', 'failed', 'deleting'"

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("default_target_model_names", ARRAY(Text), nullable=False, server_default="{}"),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("role", Text, nullable=False),
    # SHA-256 of the secret; the secret itself is shown once and never stored.
    Column("secret_sha256", LargeBinary, nullable=False, unique=True),
    # Its last four characters, by which people recognise a key.
    Column("secret_hint", Text, nullable=False),
    Column("models", ARRAY(Text)),
    Column("permissions", ARRAY(Text), nullable=False, server_default="{}"),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("expires_at", _moment),
    Column("revoked_at", _moment),
    CheckConstraint(f"role IN ({_ROLES})", name="role"),
    Index(None, "team_id", "id"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    # The key that uploaded it; null for the master key.
    Column("created_by", Text, ForeignKey("keys.id")),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("mime_type", Text, nullable=False),
    # Known once the upload has ended.
    Column("bytes", BigInteger),
    Column("sha256", Text),
    Column("upload_policy", Text, nullable=False, server_default="all"),
    # The store that keeps the bytes, while it does, such as disk:<its id>; set before the first of them is written.
    Column("source", Text),
    Column("state", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("ready_at", _moment),
    Column("expires_at", _moment),
    # What the lines of a batch's input ask for, as formats.batch_lines.Inspection tells it.
    Column("batch_lines", JSONB),
    # The id that clients knew it by before it was imported from another gateway.
    Column("imported_id", Text),
    # As for replicas: an upload's lease, and the removal of a source.
    Column("due_at", _moment),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    CheckConstraint(f"state IN ({_FILE_STATES})", name="state"),
    CheckConstraint(f"upload_policy IN ({_POLICIES})", name="upload_policy"),
    # Ids are time-ordered, so these are the keyset of the list, whole and by purpose.
    Index(None, "team_id", "id", postgresql_where=text("state = 'ready'")),
    Index(None, "team_id", "purpose", "id", postgresql_where=text("state = 'ready'")),
    Index(None, "expires_at", postgresql_where=text("state = 'ready' AND expires_at IS NOT NULL")),
    Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(None, "imported_id", unique=True, postgresql_where=text("imported_id IS NOT NULL")),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("file_id", Text, ForeignKey("files.id"), nullable=False),
    # The account's name in the configuration, and its provider for those who read the rows.
    Column("account", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_file_id", Text),
    Column("state", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("stored_at", _moment),
    # The provider's own date, such as Gemini's 48 hours.
    Column("expires_at", _moment),
    # The row is the to-do list: something is to be done from due_at on; a claim moves it on by the lease.
    Column("due_at", _moment),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    # How often a repair has looked for it in vain, and when its upload had ended at the latest.
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("lost_at", _moment),
    # Provider files that a repair found but could not surely tell to be this one: [{provider_file_id, …}].
    Column("suspects", JSONB),
    # Something is to be done, but no gateway has the account; last_error says so.
    Column("blocked", Boolean, nullable=False, server_default=text("false")),
    # The replica whose place this one is to take, before that one expires.
    Column("replaces", Text),
    # When a chat last referred to it, to the minute; kept only where replicas expire.
    Column("used_at", _moment),
    CheckConstraint(f"state IN ({_REPLICA_STATES})", name="state"),
    # A lost replica is made again beside the one that is being deleted.
    Index(None, "file_id", "account", unique=True, postgresql_where=text("state <> 'deleting' AND replaces IS NULL")),
    Index(None, "replaces", unique=True, postgresql_where=text("state <> 'deleting' AND replaces IS NOT NULL")),
    Index("ix_replicas_file_id", "file_id"),
    Index(None, "provider_file_id"),
    Index(None, "state", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        None,
        "expires_at",
        postgresql_where=text("state IN ('stored', 'processing') AND expires_at IS NOT NULL"),
    ),
    Index("ix_replicas_account_blocked", "account", postgresql_where=text("blocked")),
)

file_targets = Table(
    "file_targets",
    metadata,
    Column("file_id", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("model_name", Text, primary_key=True),
    Column("account", Text, primary_key=True),
)

# What a client's Idempotency-Key has made: a repeated request is answered with it for a day.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("team_id", Text, ForeignKey("teams.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    # Of what the request asks for, without the file's bytes, whose digest its own row has.
    Column("request_sha256", Text, nullable=False),
    # The id of the file or batch.
    Column("subject", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("expires_at", _moment, nullable=False),
    Index(None, "subject"),
    Index(None, "expires_at"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False),
    Column("created_by", Text, ForeignKey("keys.id")),
    Column("input_file_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("metadata", JSONB),
    # OpenAI's word, which is also how far we are with it.
    Column("status", Text, nullable=False),
    # Told in the transaction that records the end and makes them files.
    Column("output_file_id", Text, unique=True),
    Column("error_file_id", Text, unique=True),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("due_at", _moment),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("lines", Integer, nullable=False, server_default="0"),
    Column("completed_lines", Integer, nullable=False, server_default="0"),
    Column("failed_lines", Integer, nullable=False, server_default="0"),
    # Why it failed as a whole: [{code, line, message, param}].
    Column("errors", JSONB),
    Column("usage", JSONB),
    Column("output_expires_after_seconds", Integer),
    *(Column(f"{name}_at", _moment) for name in _BATCH_MOMENTS),
    # The store that keeps its lines, and beside them its results: whoever reads that store works on it.
    Column("store", Text),
    # When its providers were last asked.
    Column("looked_at", _moment),
    # Whoever works on it: until due_at, which is then the end of the lease.
    Column("lease", Text),
    Index(None, "team_id", "id"),
    Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

# The lines of a batch that one deployment answers: one batch at one provider.
batch_parts = Table(
    "batch_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("model_name", Text, nullable=False),
    Column("provider_model", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("provider", Text, nullable=False),
    # What stands as `model` in its lines.
    Column("line_models", ARRAY(Text), nullable=False),
    Column("lines", Integer, nullable=False),
    Column("options", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    # What its input and its batch are called at the provider; each attempt has a name of its own.
    Column("name", Text),
    # Every name that an input was ever uploaded under, and every id that a provider answered with.
    Column("input_names", postgresql.ARRAY(Text), nullable=False, server_default="{}"),
    Column("input_provider_file_ids", postgresql.ARRAY(Text), nullable=False, server_default="{}"),
    Column("provider_batch_id", Text),
    # Batches that were created for it while nobody knew, beside that one: to be stopped, and forgotten.
    Column("surplus_batch_ids", postgresql.ARRAY(Text), nullable=False, server_default="{}"),
    # Where its results are at the provider: files, or a folder.
    Column("result_ids", postgresql.ARRAY(Text), nullable=False, server_default="{}"),
    # OpenAI's word for what the provider says.
    Column("status", Text),
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    # The number of each line and its custom_id, compressed: the provider knows the numbers only.
    Column("custom_ids", LargeBinary),
    # From here on there may be a batch at the provider that has not told us its id.
    Column("creating_at", _moment),
    # How often that was looked for in vain.
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    CheckConstraint(f"state IN ({_PART_STATES})", name="state"),
    Index("ix_batch_parts_batch_id", "batch_id"),
    Index(None, "account", "provider_batch_id", unique=True),
    Index(None, "input_names", postgresql_using="gin"),
    Index(None, "input_provider_file_ids", postgresql_using="gin"),
    Index(None, "result_ids", postgresql_using="gin"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", _moment, nullable=False, server_default=func.now()),
    # Null for the master key and for the command line, which `actor` names.
    Column("key_id", Text),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB),
    Index(None, "subject"),
)
