-- Disks that live longer than the start of their instance: they grow, are attached to instances and detached from them.

-- Disks are listed, so each has a place in the order of all commits. Those that exist get the next places; their ids begin
-- with a time, so the oldest comes first.
ALTER TABLE disks ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
UPDATE disks SET seq = (SELECT s.seq FROM sequence s WHERE s.id = 1) + placed.place
    FROM (SELECT d.id, ROW_NUMBER() OVER (ORDER BY d.id) AS place FROM disks d) AS placed WHERE placed.id = disks.id;
UPDATE sequence SET seq = seq + (SELECT COUNT(*) FROM disks) WHERE id = 1;
CREATE UNIQUE INDEX disks_seq ON disks (seq);
CREATE INDEX disks_project ON disks (project, seq);
ALTER TABLE disks ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE disks ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;
UPDATE disks SET created_at = COALESCE((SELECT i.created_at FROM instances i WHERE i.id = disks.instance), 0);
UPDATE disks SET updated_at = COALESCE(saved_at, created_at);

-- As last reported by its node: its size there, the newest version that the node knows, whether a guest may have it. Null
-- from agents that do not tell.
ALTER TABLE disks ADD COLUMN reported_bytes BIGINT;
ALTER TABLE disks ADD COLUMN reported_version TEXT;
ALTER TABLE disks ADD COLUMN in_guest BIGINT CHECK (in_guest IN (0, 1));

-- Since when it is being detached, and the desired revision of its node from which on its guest is not to have it: an older
-- report does not say that the guest has let it go.
ALTER TABLE disks ADD COLUMN leaving_since BIGINT;
ALTER TABLE disks ADD COLUMN leaving_revision BIGINT NOT NULL DEFAULT 0;
-- The snapshot that saves what it holds.
ALTER TABLE disks ADD COLUMN leaving_snapshot TEXT;
-- What it waits for, in a sentence.
ALTER TABLE disks ADD COLUMN detail TEXT;
CREATE INDEX disks_leaving ON disks (leaving_since) WHERE leaving_since IS NOT NULL;

-- Disks that belong to no instance. All that they hold is in their versions. One that is attached moves to `disks`, with
-- its id, its place and its revision.
CREATE TABLE detached_disks (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    -- The name that it had within its instance.
    name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    version TEXT NOT NULL,
    saved_at BIGINT,
    -- The instance that it was detached from, and the name that this had then.
    instance TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE
);
CREATE INDEX detached_disks_project ON detached_disks (project, seq);
-- I6: what the version of a disk reaches is never swept.
CREATE INDEX detached_disks_version ON detached_disks (version);

-- Disks that have left an instance and of which its node still has a copy. The node is told to remove it.
CREATE TABLE left_disks (
    instance TEXT NOT NULL,
    disk TEXT NOT NULL,
    node TEXT NOT NULL,
    -- The desired revision of the node that tells it so. A report of an older one may lack the disk for another reason.
    told_revision BIGINT NOT NULL,
    PRIMARY KEY (instance, disk)
);
CREATE INDEX left_disks_disk ON left_disks (disk);
