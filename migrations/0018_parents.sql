-- The version that a version was made from; null for an import and where it is not known. It may be deleted by now.
ALTER TABLE versions ADD COLUMN parent TEXT;

-- A disk's versions follow each other, unless a node that had been declared dead saved one, or one was adopted after a
-- restore: such a version has no upload or is in `salvage`, and nobody knows what the versions of that disk were made from.
UPDATE versions SET parent = (SELECT o.id FROM versions o WHERE o.disk = versions.disk AND o.seq < versions.seq
        ORDER BY o.seq DESC LIMIT 1)
    WHERE disk IS NOT NULL AND disk NOT IN (SELECT s.disk FROM salvage s)
        AND NOT EXISTS (SELECT 1 FROM versions o WHERE o.disk = versions.disk AND o.upload IS NULL);
-- The first version of such a disk was made from the version that its deployment starts from.
UPDATE versions SET parent = (SELECT d.version FROM instances i JOIN deployments d ON d.id = i.deployment
        WHERE i.id = versions.instance)
    WHERE parent IS NULL AND disk IS NOT NULL AND disk NOT IN (SELECT s.disk FROM salvage s)
        AND NOT EXISTS (SELECT 1 FROM versions o WHERE o.disk = versions.disk AND o.upload IS NULL);
