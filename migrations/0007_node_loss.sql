-- When an operator declared the node dead. It stays when the node is removed: a node that returns has to learn it.
ALTER TABLE nodes ADD COLUMN fenced_at BIGINT;
CREATE INDEX nodes_fenced ON nodes (key_sha256) WHERE fenced_at IS NOT NULL;
