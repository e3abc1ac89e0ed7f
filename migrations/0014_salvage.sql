-- The disks that were on a node when it was declared dead. The node saves what they hold if it comes back.
CREATE TABLE salvage (
    node TEXT NOT NULL,
    disk TEXT NOT NULL,
    instance TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    size_bytes BIGINT NOT NULL,
    commit_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('awaited', 'saved', 'given_up')),
    detail TEXT,
    version TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    PRIMARY KEY (node, disk)
);
CREATE INDEX salvage_disk ON salvage (disk);
