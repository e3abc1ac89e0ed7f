-- What nodes say of single disks.

-- What a guest that runs has yet to get of it, and what hinders the next step for it, in a sentence; both as last reported.
ALTER TABLE disks ADD COLUMN guest_lacks TEXT CHECK (guest_lacks IN ('disk', 'size'));
ALTER TABLE disks ADD COLUMN said TEXT;

-- The version that has everything of a disk that left. A node removes only a copy of this version. Copies that are being
-- removed now are known by what the detached disk has, or by no version, so that they stay until the disk is deleted.
ALTER TABLE left_disks ADD COLUMN version TEXT;
UPDATE left_disks SET version = (SELECT d.version FROM detached_disks d WHERE d.id = left_disks.disk);
DELETE FROM left_disks WHERE version IS NULL;
