-- When the present incarnation began with a restore or an old copy; NULL in the first one.
ALTER TABLE cluster ADD COLUMN restored_at BIGINT;
