-- Sweep without clocks: the counter that uploads begin in and objects are stamped with.
CREATE TABLE rounds (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    current BIGINT NOT NULL CHECK (current >= 1)
);
INSERT INTO rounds (one, current) VALUES (1, 1);

-- Objects on their way into the pool that no version reaches yet. A live one keeps the sweep away from them.
-- `until` is a lease: past it anyone may end the upload, and with it whatever it wanted to publish.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    target_kind TEXT NOT NULL CHECK (target_kind IN ('image', 'snapshot', 'disk')),
    target_id TEXT NOT NULL,
    round BIGINT NOT NULL CHECK (round >= 1),
    begun_at BIGINT NOT NULL,
    until BIGINT NOT NULL,
    ended_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE
);
CREATE UNIQUE INDEX uploads_one_per_image ON uploads (target_id) WHERE ended_at IS NULL AND target_kind = 'image';
CREATE INDEX uploads_live ON uploads (round) WHERE ended_at IS NULL;

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL CHECK (state IN ('empty', 'ready', 'deleted')),
    reason TEXT,
    chunk_bytes BIGINT NOT NULL CHECK (chunk_bytes >= 65536 AND chunk_bytes <= 4194304),
    -- Numbers are never used twice, so the highest is remembered although its version may be gone.
    last_number BIGINT NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((deleted_at IS NOT NULL) = (state = 'deleted'))
);
CREATE UNIQUE INDEX images_name ON images (project, name) WHERE deleted_at IS NULL;
CREATE INDEX images_by_project ON images (project, seq);

-- Immutable states of disks: numbers of images, and what commits made of instances' disks. Each row is a root of its
-- own (I5); `descriptor` and `root_page` are the canonical bytes of the two objects every reader needs first.
CREATE TABLE versions (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    state TEXT NOT NULL CHECK (state IN ('ready', 'deleted')),
    reason TEXT,
    image TEXT REFERENCES images (id),
    number BIGINT CHECK (number >= 1),
    instance TEXT,
    instance_name TEXT,
    disk TEXT,
    snapshot TEXT,
    snapshot_name TEXT,
    commit_id TEXT,
    size_bytes BIGINT NOT NULL CHECK (size_bytes >= 1),
    chunk_bytes BIGINT NOT NULL,
    root TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    root_page TEXT,
    digest TEXT,
    stored_bytes BIGINT NOT NULL CHECK (stored_bytes >= 0),
    -- Stored bytes of one copy of everything it reaches, where its publish knew them.
    reached_bytes BIGINT CHECK (reached_bytes >= 0),
    upload TEXT REFERENCES uploads (id),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((deleted_at IS NOT NULL) = (state = 'deleted')),
    CHECK ((image IS NULL) = (number IS NULL)),
    CHECK ((disk IS NULL) = (instance IS NULL)),
    CHECK ((image IS NULL) <> (disk IS NULL)),
    CHECK (snapshot IS NULL OR disk IS NOT NULL)
);
CREATE UNIQUE INDEX versions_number ON versions (image, number) WHERE image IS NOT NULL;
CREATE UNIQUE INDEX versions_commit ON versions (commit_id) WHERE commit_id IS NOT NULL;
CREATE INDEX versions_by_project ON versions (project, seq);
CREATE INDEX versions_by_snapshot ON versions (snapshot, seq) WHERE snapshot IS NOT NULL;
CREATE INDEX versions_by_disk ON versions (disk, seq) WHERE disk IS NOT NULL;
