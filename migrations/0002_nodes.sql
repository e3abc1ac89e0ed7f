CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    project TEXT NOT NULL DEFAULT 'default',
    labels TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL CHECK (state IN ('joining', 'ready', 'silent', 'fenced', 'leaving', 'deleted')),
    reason TEXT,
    schedulable BIGINT NOT NULL DEFAULT 1 CHECK (schedulable IN (0, 1)),
    zone TEXT,
    address TEXT NOT NULL,
    store TEXT NOT NULL,
    key_sha256 TEXT NOT NULL,
    weight BIGINT NOT NULL CHECK (weight >= 0),
    accepting BIGINT NOT NULL DEFAULT 1 CHECK (accepting IN (0, 1)),
    cpus BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    pool TEXT NOT NULL,
    conditions TEXT NOT NULL DEFAULT '[]',
    runtimes TEXT NOT NULL,
    hypervisor TEXT,
    agent_version TEXT NOT NULL,
    protocol BIGINT NOT NULL,
    desired_revision BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((deleted_at IS NOT NULL) = (state = 'deleted'))
);
CREATE UNIQUE INDEX nodes_name ON nodes (name) WHERE deleted_at IS NULL;
-- A pool joins once, ever: the store of a deleted node does not come back by itself.
CREATE UNIQUE INDEX nodes_store ON nodes (store);
CREATE UNIQUE INDEX nodes_key ON nodes (key_sha256) WHERE deleted_at IS NULL;

-- Every epoch of the membership record as it was signed. Readers of old epochs need the history.
CREATE TABLE memberships (
    epoch BIGINT PRIMARY KEY,
    record TEXT NOT NULL,
    signature TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
