-- Rows that nothing refers to any more are dropped some time after their end. These indexes find them, and what refers to them.
CREATE INDEX versions_deleted ON versions (deleted_at, seq) WHERE deleted_at IS NOT NULL;
CREATE INDEX versions_by_parent ON versions (parent) WHERE parent IS NOT NULL;
CREATE INDEX images_deleted ON images (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX memberships_closed ON memberships (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX disks_reported_version ON disks (reported_version) WHERE reported_version IS NOT NULL;
CREATE INDEX deployments_version ON deployments (version) WHERE version IS NOT NULL;
CREATE INDEX snapshot_members_base ON snapshot_members (base) WHERE base IS NOT NULL;
CREATE INDEX readers_version ON readers (version);
