-- Instances that nodes hold and this database does not know, because it was restored from an older copy.
CREATE TABLE found_instances (
    id TEXT PRIMARY KEY,
    -- What its node was last told of it, copied from the report: the project, and what it uses on the node.
    project TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '{}',
    node TEXT NOT NULL,
    runtime TEXT NOT NULL CHECK (runtime IN ('libvirt', 'none')),
    cpus BIGINT NOT NULL CHECK (cpus >= 0),
    memory_bytes BIGINT NOT NULL CHECK (memory_bytes >= 0),
    -- The last report of its node, JSON.
    report TEXT NOT NULL,
    -- An operator gave it up: its node is told to delete it.
    forgotten BIGINT NOT NULL DEFAULT 0 CHECK (forgotten IN (0, 1)),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE
);
CREATE INDEX found_instances_node ON found_instances (node);
