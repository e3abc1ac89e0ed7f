-- When an operator declared the node dead. It stays when the node is removed: a node that returns has to learn it.
ALTER TABLE nodes ADD COLUMN fenced_at BIGINT;
CREATE INDEX nodes_fenced ON nodes (key_sha256) WHERE fenced_at IS NOT NULL;

-- Whether the guest was started on the disk that the instance has now.
ALTER TABLE instances ADD COLUMN was_started BIGINT NOT NULL DEFAULT 0 CHECK (was_started IN (0, 1));
UPDATE instances SET was_started = 1 WHERE started_at IS NOT NULL OR was_ready = 1 OR boot > 1;
-- Boots of the guest, those by itself in the present start, and why it last ended, failed, was held or restarted.
ALTER TABLE instances ADD COLUMN boots BIGINT NOT NULL DEFAULT 0;
UPDATE instances SET boots = boot WHERE started_at IS NOT NULL;
ALTER TABLE instances ADD COLUMN reboots BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN last_reason TEXT;
ALTER TABLE instances ADD COLUMN last_reason_at BIGINT;

-- When the agent of a node ended in order; the state is 'silent' then, and shown as 'stopped'.
ALTER TABLE nodes ADD COLUMN stopped_at BIGINT;
-- Whether all members are stopped; the state is 'ready' then, and shown as 'stopped'.
ALTER TABLE deployments ADD COLUMN all_stopped BIGINT NOT NULL DEFAULT 0 CHECK (all_stopped IN (0, 1));

-- What becomes of a member that runs and is not ready in time.
ALTER TABLE deployments ADD COLUMN on_ready_timeout TEXT NOT NULL DEFAULT 'keep'
    CHECK (on_ready_timeout IN ('keep', 'stop'));
