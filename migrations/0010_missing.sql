-- How many members of the snapshot have no version any more, because it was deleted by itself.
ALTER TABLE snapshots ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
UPDATE snapshots SET missing =
    (SELECT COUNT(*) FROM versions v WHERE v.snapshot = snapshots.id AND v.deleted_at IS NOT NULL)
WHERE state = 'ready';
