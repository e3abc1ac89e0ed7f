-- Raised by every change of a deployment's members and of their disks: what was counted of them holds until then.
ALTER TABLE deployments ADD COLUMN members_revision BIGINT NOT NULL DEFAULT 0;

-- What the node has promised to the instances on it. Whoever writes instances keeps it, in the same transaction. Instances
-- with runtime none have no processors and no memory.
ALTER TABLE nodes ADD COLUMN promised_instances BIGINT NOT NULL DEFAULT 0 CHECK (promised_instances >= 0);
ALTER TABLE nodes ADD COLUMN promised_cpus BIGINT NOT NULL DEFAULT 0 CHECK (promised_cpus >= 0);
ALTER TABLE nodes ADD COLUMN promised_memory_bytes BIGINT NOT NULL DEFAULT 0 CHECK (promised_memory_bytes >= 0);
UPDATE nodes SET promised_instances = (SELECT COUNT(*) FROM instances i WHERE i.node = nodes.id),
    promised_cpus = (SELECT CAST(COALESCE(SUM(i.cpus), 0) AS BIGINT) FROM instances i
        WHERE i.node = nodes.id AND i.runtime = 'libvirt'),
    promised_memory_bytes = (SELECT CAST(COALESCE(SUM(i.memory_bytes), 0) AS BIGINT) FROM instances i
        WHERE i.node = nodes.id AND i.runtime = 'libvirt');

-- Members are counted from this index alone.
DROP INDEX instances_deployment;
CREATE INDEX instances_counted ON instances (deployment, state, ready_at, reason);
-- The summary counts from these alone.
CREATE INDEX instances_by_state ON instances (project, state);
CREATE INDEX operations_by_state ON operations (project, state);
