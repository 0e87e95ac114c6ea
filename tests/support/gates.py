"""Triggers by which a test holds a transaction up in its commit, the n-th that touches a file, or its batch."""

from dataclasses import dataclass, field

from tests.support.world import until

GATES = """
CREATE TABLE gates (filename text PRIMARY KEY, edge int NOT NULL, key int GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    -- What a batch has made is named as its input.
    name text := coalesce(
        (SELECT filename FROM batches JOIN files ON files.id = input_file_id
         WHERE coalesce(touched->>'batch_id', touched->>'subject', touched->>'id') = batches.id
               OR touched->>'filename' IN (batches.id || '_output.jsonl', batches.id || '_error.jsonl')),
        touched->>'filename',
        (SELECT filename FROM files WHERE id = coalesce(touched->>'file_id', touched->>'subject'))
    );
    gate gates;
BEGIN
    SELECT * INTO gate FROM gates WHERE filename = name;
    -- Once in each transaction; a sequence counts those that are rolled back, too.
    IF FOUND AND current_setting('gates.met', true) IS DISTINCT FROM name THEN
        PERFORM set_config('gates.met', name, true);
        IF nextval(quote_ident(name)) = gate.edge THEN PERFORM pg_advisory_xact_lock_shared(gate.key); END IF;
    END IF;
    RETURN NULL;
END $$;
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER wait_at_gate AFTER INSERT OR UPDATE OR DELETE ON {table}
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (current_setting('application_name') = 'filemux')
EXECUTE FUNCTION wait_at_gate()
"""
WAITING = """
SELECT pid, objid AS key FROM pg_locks JOIN pg_database ON oid = database
WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
"""
GATEWAYS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'filemux'"
TOUCHED = ("files", "replicas", "file_targets", "idempotency_keys", "batches", "batch_parts")


@dataclass
class Crossing:
    """One file's transaction that the gateway does not survive: the n-th, committed or not."""

    operation: str
    edge: int
    commits: bool
    # Whose chats are to see the file.
    model_name: str
    file_id: str = field(default="", init=False)
    reached: bool = field(default=False, init=False)

    @property
    def filename(self):
        return f"{self.operation}, edge {self.edge}, {'committed' if self.commits else 'rolled back'}.pdf"

    @property
    def content(self):
        return b"%PDF-1.7 " + self.filename.encode()


class Gates:
    """Where the transactions of crossings are held up; `connection` is a raw one."""

    def __init__(self, connection):
        self._connection = connection
        self._closed = {}

    async def build(self):
        """Have every transaction pass here."""
        await self._connection.execute(GATES)
        for table in TOUCHED:
            await self._connection.execute(TRIGGER.format(table=table))

    async def close(self, *crossings):
        """Let these not pass; what else touches their files does."""
        for one in crossings:
            await self._connection.execute(f'CREATE SEQUENCE "{one.filename}"')
            new = "INSERT INTO gates (filename, edge) VALUES ($1, $2) RETURNING key"
            key = await self._connection.fetchval(new, one.filename, one.edge)
            await self._connection.execute("SELECT pg_advisory_lock($1)", key)
            self._closed[key] = one

    async def look(self):
        """Which backend waits for which crossing."""
        waiting = {row["pid"]: self._closed[row["key"]] for row in await self._connection.fetch(WAITING)}
        for one in waiting.values():
            one.reached = True
        return waiting

    async def open(self):
        """Roll back what shall not be committed, and let the rest through; return once that is done."""
        for pid, one in (await self.look()).items():
            if not one.commits:
                await self._connection.execute("SELECT pg_terminate_backend($1)", pid)
        await self._connection.execute("SELECT pg_advisory_unlock_all()")
        await self._connection.execute("DELETE FROM gates")
        self._closed = {}
        await until(self._all_are_gone)

    async def _all_are_gone(self):
        return not await self._connection.fetchval(GATEWAYS)
