-- Every table that is listed has a seq: it orders the rows, and is the cursor of pages. Runs are listed
-- by their ids instead.
-- AUTOINCREMENT, so that a number is never given twice.

CREATE TABLE keys (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    limits TEXT NOT NULL,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    created INTEGER NOT NULL,
    revoked_at INTEGER,
    last_used INTEGER
) STRICT;

CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    key_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')),
    attempt INTEGER NOT NULL DEFAULT 0,
    durable INTEGER NOT NULL CHECK (durable IN (0, 1)),
    priority INTEGER NOT NULL,
    deadline INTEGER,
    about TEXT NOT NULL,
    -- Until it has ended: nobody needs it then.
    spec TEXT,
    outcome TEXT,
    created INTEGER NOT NULL,
    started INTEGER,
    finished INTEGER,
    CHECK ((finished IS NULL) = (state IN ('queued', 'running'))),
    CHECK ((finished IS NULL) = (spec IS NOT NULL))
) STRICT;
CREATE INDEX runs_of_tenant ON runs (tenant, id);
CREATE INDEX runs_unfinished ON runs (seq) WHERE finished IS NULL;
CREATE INDEX runs_finished ON runs (finished) WHERE finished IS NOT NULL;

-- Apart from the runs, so that lists do not read over them; in parts, so that who reads one page does
-- not read over all of them.
CREATE TABLE run_outputs (
    run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    -- Number of its last event.
    last INTEGER NOT NULL,
    events BLOB NOT NULL,
    PRIMARY KEY (run, last)
) STRICT;

-- Which run an idempotency key means. The id is a name: a key may outlive its run.
CREATE TABLE run_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    run TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_keys_created ON run_keys (created);

CREATE TABLE sandboxes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    key_id TEXT,
    host TEXT NOT NULL,
    -- A name: the parent's record may go first.
    parent TEXT,
    state TEXT NOT NULL,
    live INTEGER NOT NULL CHECK (live IN (0, 1)),
    reason TEXT,
    generation INTEGER NOT NULL DEFAULT 1,
    revision INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    spec TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    updated INTEGER NOT NULL
) STRICT;
CREATE INDEX sandboxes_of_tenant ON sandboxes (tenant, seq);
CREATE INDEX sandboxes_live ON sandboxes (seq) WHERE live;
CREATE INDEX sandboxes_ended ON sandboxes (updated) WHERE NOT live;

CREATE TABLE sandbox_labels (
    sandbox INTEGER NOT NULL REFERENCES sandboxes (seq) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (sandbox, name)
) STRICT, WITHOUT ROWID;

-- Sandbox and parent are names: a snapshot outlives both.
CREATE TABLE snapshots (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    parent TEXT,
    created INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    template TEXT NOT NULL,
    host TEXT NOT NULL
) STRICT;
CREATE INDEX snapshots_of_tenant ON snapshots (tenant, seq);
CREATE INDEX snapshots_of_host ON snapshots (host, seq);

CREATE TABLE idempotency (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    created INTEGER NOT NULL,
    status INTEGER,
    headers TEXT,
    body BLOB,
    UNIQUE (tenant, key),
    CHECK ((status IS NULL) = (headers IS NULL) AND (status IS NULL) = (body IS NULL))
) STRICT;
CREATE INDEX idempotency_created ON idempotency (created);

CREATE TABLE usage (
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    day INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    PRIMARY KEY (tenant, key_id, day)
) STRICT, WITHOUT ROWID;

-- Rows are only ever added, each after the last one. REPLACE is a delete, and recursive_triggers is on.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_rows_follow BEFORE INSERT ON audit
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
    BEGIN SELECT raise(ABORT, 'a row of the audit log follows the last one'); END;
CREATE TRIGGER audit_rows_stay BEFORE DELETE ON audit
    BEGIN SELECT raise(ABORT, 'rows of the audit log are not deleted'); END;
CREATE TRIGGER audit_rows_are_final BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'rows of the audit log are not changed'); END;
