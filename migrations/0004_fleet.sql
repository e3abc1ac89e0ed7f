-- Deployments, their instances and disks; snapshots and their members.
-- TEXT and BIGINT only; times in microseconds; flags 0 and 1; JSON as TEXT. `seq` is taken once, when a row is made:
-- lists are oldest first.

CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    -- What the members last added up to; answers count anew.
    state TEXT NOT NULL CHECK (state IN ('deploying', 'ready', 'degraded', 'shelved', 'deleting', 'deleted')),
    reason TEXT,
    -- References resolved to ids, as JSON; `version` is what members without one of their own start from.
    source TEXT NOT NULL,
    source_name TEXT,
    version TEXT,
    count BIGINT NOT NULL CHECK (count >= 0),
    min_count BIGINT NOT NULL CHECK (min_count >= 0),
    -- Numbers are never used twice.
    next_number BIGINT NOT NULL CHECK (next_number >= 0),
    cpus BIGINT NOT NULL CHECK (cpus > 0),
    memory_bytes BIGINT NOT NULL CHECK (memory_bytes > 0),
    disk_bytes BIGINT NOT NULL CHECK (disk_bytes > 0),
    runtime TEXT NOT NULL CHECK (runtime IN ('libvirt', 'none')),
    ready TEXT NOT NULL,
    placement TEXT NOT NULL,
    deadline_s BIGINT NOT NULL CHECK (deadline_s > 0),
    -- Percentiles when the last operation ended, as JSON.
    timing TEXT NOT NULL,
    -- A member changed since the reconciler last counted.
    dirty BIGINT NOT NULL DEFAULT 1 CHECK (dirty IN (0, 1)),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE INDEX deployments_dirty ON deployments (seq) WHERE dirty = 1;
CREATE INDEX deployments_project ON deployments (project, seq);
-- DELETE frees the name at once.
CREATE UNIQUE INDEX deployments_name ON deployments (project, name) WHERE state NOT IN ('deleting', 'deleted');
CREATE INDEX deployments_deleted ON deployments (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    deployment TEXT NOT NULL REFERENCES deployments (id),
    number BIGINT NOT NULL CHECK (number >= 0),
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'starting', 'running', 'paused', 'stopping', 'stopped', 'migrating',
        'unknown', 'failed', 'deleting', 'deleted')),
    reason TEXT,
    detail TEXT,
    -- What its node is told: domain/instance.rs.
    wanted TEXT NOT NULL CHECK (wanted IN ('running', 'stopped', 'gone')),
    boot BIGINT NOT NULL CHECK (boot > 0),
    generation BIGINT NOT NULL CHECK (generation > 0),
    node TEXT,
    stop_force BIGINT NOT NULL CHECK (stop_force IN (0, 1)),
    stop_timeout_s BIGINT NOT NULL,
    evicting BIGINT NOT NULL CHECK (evicting IN (0, 1)),
    was_ready BIGINT NOT NULL CHECK (was_ready IN (0, 1)),
    known TEXT,
    requested_at BIGINT,
    placed_at BIGINT,
    disk_at BIGINT,
    started_at BIGINT,
    ready_at BIGINT,
    cpus BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    runtime TEXT NOT NULL,
    -- The operation that waits for it.
    operation TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    UNIQUE (deployment, number),
    -- I8: what may be written somewhere has a place; what is gone has none.
    CHECK (state IN ('pending', 'failed', 'deleted', 'unknown') OR node IS NOT NULL),
    CHECK (state <> 'deleted' OR node IS NULL),
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL)),
    CHECK ((state = 'unknown') = (known IS NOT NULL))
);
CREATE INDEX instances_project ON instances (project, seq);
CREATE UNIQUE INDEX instances_name ON instances (project, name) WHERE state NOT IN ('deleting', 'deleted');
CREATE INDEX instances_listed ON instances (deployment, seq);
CREATE INDEX instances_deployment ON instances (deployment, state, ready_at);
-- The scheduler adds up what each node has promised from this index alone.
CREATE INDEX instances_node ON instances (node, runtime, cpus, memory_bytes) WHERE node IS NOT NULL;
CREATE INDEX instances_operation ON instances (operation) WHERE operation IS NOT NULL;
CREATE INDEX instances_homeless ON instances (seq) WHERE state = 'pending' AND node IS NULL;
CREATE INDEX instances_unknown ON instances (node) WHERE state = 'unknown';
CREATE INDEX instances_deleted ON instances (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE disks (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    instance TEXT NOT NULL REFERENCES instances (id),
    name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    -- Its head: the newest published version. Moved by publishing only, compare-and-set.
    version TEXT NOT NULL,
    saved_at BIGINT,
    -- As last reported by its node.
    path TEXT,
    unsaved_bytes BIGINT NOT NULL DEFAULT 0,
    fetched_bytes BIGINT NOT NULL DEFAULT 0,
    local_bytes BIGINT NOT NULL DEFAULT 0,
    revision BIGINT NOT NULL DEFAULT 1,
    UNIQUE (instance, name)
);
-- I6: what the base of a disk reaches is never swept.
CREATE INDEX disks_version ON disks (version);

CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('cutting', 'saving', 'ready', 'failed', 'deleted')),
    reason TEXT,
    deployment TEXT,
    deployment_name TEXT,
    consistency TEXT NOT NULL,
    max_pause_ms BIGINT NOT NULL,
    cut_at BIGINT,
    durable_at BIGINT,
    members BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    dirty_bytes BIGINT NOT NULL DEFAULT 0,
    stored_bytes BIGINT NOT NULL DEFAULT 0,
    pause_max_us BIGINT,
    -- The try under way: domain/snapshot.rs.
    attempt BIGINT NOT NULL,
    coordinator TEXT,
    attempt_until BIGINT,
    refused TEXT,
    refused_detail TEXT,
    deadline BIGINT NOT NULL,
    upload TEXT,
    round BIGINT,
    operation TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE INDEX snapshots_project ON snapshots (project, seq);
CREATE UNIQUE INDEX snapshots_name ON snapshots (project, name) WHERE state <> 'deleted';
CREATE INDEX snapshots_under_way ON snapshots (seq) WHERE state IN ('cutting', 'saving');
CREATE INDEX snapshots_deleted ON snapshots (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE snapshot_members (
    snapshot TEXT NOT NULL REFERENCES snapshots (id),
    disk TEXT NOT NULL,
    instance TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    -- Where it was when the snapshot was asked for; a snapshot of a disk that moved fails.
    node TEXT NOT NULL,
    generation BIGINT NOT NULL,
    -- New with each try; published at most once.
    commit_id TEXT NOT NULL UNIQUE,
    version TEXT,
    pause_us BIGINT,
    dirty_bytes BIGINT NOT NULL DEFAULT 0,
    stored_bytes BIGINT NOT NULL DEFAULT 0,
    -- Staged: everything is durable, waiting for the others.
    staged_at BIGINT,
    base TEXT,
    descriptor TEXT,
    root_page TEXT,
    seq BIGINT NOT NULL,
    PRIMARY KEY (snapshot, disk),
    CHECK ((staged_at IS NULL) = (descriptor IS NULL))
);
CREATE INDEX snapshot_members_disk ON snapshot_members (disk);
CREATE INDEX snapshot_members_node ON snapshot_members (node, snapshot);
