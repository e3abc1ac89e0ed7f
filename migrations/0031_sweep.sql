-- The sweep: what keeps versions from it that nobody else needs any more, and how far it is.

-- Who reads a version that may be deleted meanwhile. It is kept until the lease ends.
CREATE TABLE readers (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    until BIGINT NOT NULL
);

CREATE TABLE sweep (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    -- The incarnation in which an operator last allowed it, if there was a restore. What this database and the nodes knew
    -- differently was settled by then.
    allowed_number BIGINT,
    allowed_random TEXT,
    -- When the newest round began, and whether something was to be given back in it.
    begun_at BIGINT,
    had_work BIGINT NOT NULL DEFAULT 1 CHECK (had_work IN (0, 1)),
    -- An operator waits until this round is carried out.
    asked_round BIGINT NOT NULL DEFAULT 0,
    CHECK ((allowed_number IS NULL) = (allowed_random IS NULL))
);
-- Nothing was swept before, so what a restore before now has left is settled as well as it can be.
INSERT INTO sweep (one, allowed_number, allowed_random)
    VALUES (1, (SELECT incarnation_number FROM cluster), (SELECT incarnation_random FROM cluster));

-- The versions that a disk of a dead node may build on: its newest one here, and the one that its node knew.
ALTER TABLE salvage ADD COLUMN base TEXT;
ALTER TABLE salvage ADD COLUMN reported_base TEXT;
UPDATE salvage SET base = (SELECT d.version FROM disks d WHERE d.id = salvage.disk) WHERE state = 'awaited';

-- Roots are found by their names, and uploads that published nothing by their ends.
CREATE INDEX versions_by_root ON versions (root);
CREATE INDEX versions_by_upload ON versions (upload) WHERE upload IS NOT NULL;
CREATE INDEX uploads_by_end ON uploads (ended_at) WHERE ended_at IS NOT NULL;
