-- The one order of everything listed and of all events. Its row is also the turn to write (store/backend.rs).
CREATE TABLE sequence (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL CHECK (seq >= 0),
    -- Events below this position are forgotten.
    events_from BIGINT NOT NULL
);
INSERT INTO sequence (id, seq, events_from) VALUES (1, 0, 1);

-- One row: what this database is. The pair (incarnation_number, incarnation_random) names a state of it.
CREATE TABLE cluster (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    ca_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    incarnation_number BIGINT NOT NULL CHECK (incarnation_number >= 1),
    incarnation_random TEXT NOT NULL
);

CREATE TABLE projects (
    name TEXT PRIMARY KEY,
    labels TEXT NOT NULL DEFAULT '{}',
    created_at BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE
);

-- Secrets are kept as SHA-256 of 32 random bytes: nothing to guess, so nothing to stretch.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'tenant', 'node')),
    project TEXT REFERENCES projects (name),
    labels TEXT NOT NULL DEFAULT '{}',
    secret_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    uses_left BIGINT CHECK (uses_left >= 0),
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((role = 'tenant') = (project IS NOT NULL)),
    CHECK ((role = 'node') = (uses_left IS NOT NULL))
);

-- Stored in the transaction of the effect it stands for; kept 24 hours.
CREATE TABLE idempotency_keys (
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    location TEXT,
    operation TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (project, key)
);
CREATE INDEX idempotency_keys_by_end ON idempotency_keys (expires_at);

CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    kind TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    target_name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    phase TEXT NOT NULL,
    done BIGINT NOT NULL,
    total BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    unit TEXT NOT NULL,
    waiting_on TEXT NOT NULL DEFAULT '[]',
    deadline BIGINT,
    error TEXT,
    result TEXT,
    requested_by TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
);
-- One running operation per target.
CREATE UNIQUE INDEX operations_one_running ON operations (target_kind, target_id) WHERE finished_at IS NULL;
CREATE INDEX operations_by_target ON operations (target_id, seq);
CREATE INDEX operations_by_project ON operations (project, seq);
CREATE INDEX operations_by_end ON operations (finished_at);

CREATE TABLE events (
    seq BIGINT PRIMARY KEY,
    time BIGINT NOT NULL,
    kind TEXT NOT NULL,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    target_name TEXT NOT NULL,
    operation TEXT,
    deployment TEXT,
    node TEXT,
    actor TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (time);
