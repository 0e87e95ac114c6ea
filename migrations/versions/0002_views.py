"""The operators' views, and a role that may read them and nothing else. docs/sql.md is their manual.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FILE_MAPPINGS = """
CREATE VIEW file_mappings AS
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
    SELECT * FROM replicas r
    WHERE r.file_id = f.id AND r.account = ft.account
    ORDER BY (r.state = 'deleting'), r.id DESC
    LIMIT 1
) r ON true
"""

REPLICA_BACKLOG = """
CREATE VIEW replica_backlog AS
SELECT r.file_id,
       t.name AS team,
       r.provider,
       r.account,
       r.provider_file_id,
       r.state,
       r.due_at,
       r.attempts,
       r.last_error,
       r.created_at
FROM replicas r
JOIN files f ON f.id = r.file_id
JOIN teams t ON t.id = f.team_id
WHERE r.state IN ('pending', 'processing', 'deleting')
"""

ORPHAN_SUSPECTS = """
CREATE VIEW orphan_suspects AS
SELECT r.file_id,
       t.name AS team,
       r.provider,
       r.account,
       suspect ->> 'provider_file_id' AS provider_file_id,
       suspect ->> 'filename' AS filename,
       (suspect ->> 'bytes')::bigint AS bytes,
       to_timestamp((suspect ->> 'created_at')::double precision) AS created_at
FROM replicas r
JOIN files f ON f.id = r.file_id
JOIN teams t ON t.id = f.team_id
CROSS JOIN LATERAL jsonb_array_elements(r.suspects) AS suspect
"""

TEAM_USAGE = """
CREATE VIEW team_usage AS
SELECT t.name AS team,
       count(f.id) AS files,
       coalesce(sum(f.bytes), 0)::bigint AS bytes,
       coalesce(sum(r.replicas), 0)::bigint AS replicas,
       coalesce(sum(r.replicas * f.bytes), 0)::bigint AS replica_bytes,
       max(f.created_at) AS last_upload_at
FROM teams t
LEFT JOIN files f ON f.team_id = t.id AND f.state = 'ready'
LEFT JOIN LATERAL (
    SELECT count(*) AS replicas FROM replicas r WHERE r.file_id = f.id AND r.state IN ('stored', 'processing')
) r ON true
GROUP BY t.name
"""

VIEWS = ("file_mappings", "replica_backlog", "orphan_suspects", "team_usage")

# A role belongs to the whole server: it may be there already, and making it needs CREATEROLE. An operator whose
# database user has no such right loses only the role, and is told so.
READONLY_ROLE = f"""
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'filemux_readonly') THEN
        CREATE ROLE filemux_readonly NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, 'filemux_readonly', 'USAGE') THEN
        EXECUTE format('GRANT filemux_readonly TO %I', current_user);
    END IF;
    GRANT SELECT ON {", ".join(VIEWS)} TO filemux_readonly;
EXCEPTION
    WHEN insufficient_privilege OR unique_violation OR duplicate_object THEN
        RAISE WARNING 'the role filemux_readonly was not set up: %', SQLERRM;
END
$$
"""


def upgrade() -> None:
    for view in (FILE_MAPPINGS, REPLICA_BACKLOG, ORPHAN_SUSPECTS, TEAM_USAGE):
        op.execute(view)
    op.execute(READONLY_ROLE)


def downgrade() -> None:
    # Dropping a view drops its grants; the role stays, since other databases of the server may use it.
    for view in reversed(VIEWS):
        op.execute(f"DROP VIEW {view}")
