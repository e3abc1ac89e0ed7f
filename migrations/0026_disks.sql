-- Disks beside the boot disk.

-- The disks that members get beside the boot disk, as JSON; versions are ids.
ALTER TABLE deployments ADD COLUMN disks TEXT NOT NULL DEFAULT '[]';

-- The place of the disk among those of its instance. The boot disk has 0.
ALTER TABLE disks ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
UPDATE disks SET number = 1 WHERE name <> 'root';

-- The names that the disks had when they were cut, because the names outlive the disks.
ALTER TABLE snapshot_members ADD COLUMN disk_name TEXT NOT NULL DEFAULT 'root';
UPDATE snapshot_members SET disk_name = COALESCE((SELECT d.name FROM disks d WHERE d.id = snapshot_members.disk), 'root');
ALTER TABLE salvage ADD COLUMN disk_name TEXT NOT NULL DEFAULT 'root';
UPDATE salvage SET disk_name = COALESCE((SELECT d.name FROM disks d WHERE d.id = salvage.disk), 'root');
ALTER TABLE versions ADD COLUMN disk_name TEXT;
UPDATE versions SET disk_name = COALESCE((SELECT d.name FROM disks d WHERE d.id = versions.disk), 'root')
    WHERE disk IS NOT NULL;
