-- What the guest agents of instances told. It is a table of its own because lists of instances do without it, and because
-- it changes without a change of the instance. A row goes when the guest ends, at the latest with its instance.
CREATE TABLE guests (
    instance TEXT PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    -- JSON, as the node reported it.
    facts TEXT NOT NULL
);

-- What becomes of a member that ran when its host went down.
ALTER TABLE deployments ADD COLUMN on_host_start TEXT NOT NULL DEFAULT 'start' CHECK (on_host_start IN ('start', 'stay'));
