-- Protection of deployments: snapshots that the controller takes by itself.

CREATE TABLE protections (
    deployment TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    -- Time between two snapshots.
    every_s BIGINT NOT NULL CHECK (every_s > 0),
    -- Which snapshots stay, as JSON.
    keep TEXT NOT NULL,
    -- Since when it is protected.
    since BIGINT NOT NULL,
    -- When the next snapshot is due.
    next_at BIGINT NOT NULL,
    -- All that was written before is saved.
    saved_at BIGINT,
    -- The newest snapshot that is ready, and the one under way.
    last_snapshot TEXT,
    under_way TEXT,
    -- What the one under way leaves out, in a sentence.
    left_out TEXT,
    -- Snapshots that failed since the last one that did not, and those of them that were not durable in time.
    failures BIGINT NOT NULL DEFAULT 0 CHECK (failures >= 0),
    late BIGINT NOT NULL DEFAULT 0 CHECK (late >= 0),
    -- Why the last one did not save everything, in a sentence.
    trouble TEXT
);
CREATE INDEX protections_due ON protections (next_at) WHERE under_way IS NULL;
CREATE INDEX protections_under_way ON protections (under_way) WHERE under_way IS NOT NULL;

-- The controller took it by itself, and deletes it when its deployment does not want it any more.
ALTER TABLE snapshots ADD COLUMN scheduled BIGINT NOT NULL DEFAULT 0 CHECK (scheduled IN (0, 1));
-- Its objects are stored slowly.
ALTER TABLE snapshots ADD COLUMN background BIGINT NOT NULL DEFAULT 0 CHECK (background IN (0, 1));
CREATE INDEX snapshots_scheduled ON snapshots (deployment, seq) WHERE scheduled = 1;
