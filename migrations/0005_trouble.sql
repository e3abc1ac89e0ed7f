-- What keeps a member's commit from being saved, in a sentence; NULL while nothing does.
ALTER TABLE snapshot_members ADD COLUMN trouble TEXT;
