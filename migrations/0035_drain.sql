-- Draining of nodes, how many copies of objects are wanted, and which membership epochs are closed.

-- When a node began to be drained: no objects and no new instances belong on it since; and when it was found empty.
ALTER TABLE nodes ADD COLUMN draining_at BIGINT;
ALTER TABLE nodes ADD COLUMN drained_at BIGINT;

CREATE TABLE pool_settings (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    -- Copies of every object, as an operator last set it; null while the configuration counts.
    min_copies BIGINT CHECK (min_copies BETWEEN 1 AND 7)
);
INSERT INTO pool_settings (one) VALUES (1);

-- When all nodes had handed over what newer epochs gave to others. Nobody asks its owners since.
ALTER TABLE memberships ADD COLUMN closed_at BIGINT;
CREATE INDEX memberships_open ON memberships (epoch) WHERE closed_at IS NULL;
