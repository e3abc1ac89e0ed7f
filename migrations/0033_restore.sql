-- Snapshots are restored in place: disks of instances get the content that they had, and everything else stays.

-- The generation of its instance from which the content of a disk counts: a restore put it in place then. A copy on a node
-- that was written under an older one is not this disk any more. 0 if that never happened.
ALTER TABLE disks ADD COLUMN since_generation BIGINT NOT NULL DEFAULT 0;
-- The generation under which the copy on its node is written, as last reported. Null from agents that do not tell.
ALTER TABLE disks ADD COLUMN reported_generation BIGINT;

-- Restores under way. A row goes when its operation ends.
CREATE TABLE restores (
    operation TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    snapshot_name TEXT NOT NULL,
    -- When its versions were published.
    saved_at BIGINT,
    step TEXT NOT NULL CHECK (step IN ('stopping', 'saving', 'starting')),
    -- When the step is given up.
    until BIGINT NOT NULL,
    -- The present is not kept.
    discard BIGINT NOT NULL CHECK (discard IN (0, 1)),
    stop_force BIGINT NOT NULL CHECK (stop_force IN (0, 1)),
    stop_timeout_s BIGINT NOT NULL,
    -- The snapshot that keeps the present.
    kept TEXT
);

-- The disks that get the versions of the snapshot, with their instances as they were when somebody asked for it.
CREATE TABLE restore_disks (
    operation TEXT NOT NULL,
    disk TEXT NOT NULL,
    disk_name TEXT NOT NULL,
    instance TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    version TEXT NOT NULL,
    -- The instance is to run afterwards.
    runs BIGINT NOT NULL CHECK (runs IN (0, 1)),
    -- Its file is closed while the present is kept: it is no guest's.
    closed BIGINT NOT NULL CHECK (closed IN (0, 1)),
    -- Its new content is in place.
    restored BIGINT NOT NULL DEFAULT 0 CHECK (restored IN (0, 1)),
    seq BIGINT NOT NULL,
    PRIMARY KEY (operation, disk)
);
CREATE INDEX restore_disks_instance ON restore_disks (instance);
-- I6: what is to be restored is not swept.
CREATE INDEX restore_disks_version ON restore_disks (version);
