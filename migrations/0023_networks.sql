-- Networks, security groups, and the cards that instances have in networks.

CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'deleted')),
    mode TEXT NOT NULL CHECK (mode IN ('nat', 'isolated', 'bridge')),
    -- Name of the bridge on the hosts. Such a network has no addresses of its own.
    bridge TEXT,
    subnet_v4 TEXT,
    gateway_v4 TEXT,
    subnet_v6 TEXT,
    dns TEXT NOT NULL,
    mtu BIGINT NOT NULL CHECK (mtu BETWEEN 576 AND 9000),
    -- Its number in tunnel packets and in the MAC addresses of its cards.
    vni BIGINT NOT NULL CHECK (vni BETWEEN 1 AND 16777215),
    -- The host number that was given last. The next card gets the next free one, so that none is used again at once.
    last_host BIGINT NOT NULL DEFAULT 0 CHECK (last_host BETWEEN 0 AND 65535),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((mode = 'bridge') = (bridge IS NOT NULL)),
    CHECK ((mode = 'bridge') = (subnet_v4 IS NULL)),
    CHECK ((subnet_v4 IS NULL) = (gateway_v4 IS NULL)),
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE INDEX networks_project ON networks (project, seq);
CREATE UNIQUE INDEX networks_name ON networks (project, name) WHERE state <> 'deleted';
CREATE UNIQUE INDEX networks_vni ON networks (vni) WHERE state <> 'deleted';
CREATE INDEX networks_deleted ON networks (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE security_groups (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'deleted')),
    -- As nodes get them, as JSON.
    rules TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    revision BIGINT NOT NULL DEFAULT 1,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((state = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE INDEX security_groups_project ON security_groups (project, seq);
CREATE UNIQUE INDEX security_groups_name ON security_groups (project, name) WHERE state <> 'deleted';
CREATE INDEX security_groups_deleted ON security_groups (deleted_at) WHERE deleted_at IS NOT NULL;

-- The cards that members get, as JSON. References are ids.
ALTER TABLE deployments ADD COLUMN nics TEXT NOT NULL DEFAULT '[]';

-- The networks and security groups that deployments use. Rows go when the deployment is deleted.
CREATE TABLE deployment_uses (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    -- Id of a network or of a security group.
    used TEXT NOT NULL,
    PRIMARY KEY (deployment, used)
);
CREATE INDEX deployment_uses_used ON deployment_uses (used, deployment);

-- The card number `position` of an instance. It has what the nic with that position of the deployment says; its addresses
-- follow from network and host number. Rows go when the instance is deleted.
CREATE TABLE nics (
    instance TEXT NOT NULL REFERENCES instances (id),
    position BIGINT NOT NULL CHECK (position >= 0),
    network TEXT NOT NULL REFERENCES networks (id),
    host_number BIGINT NOT NULL CHECK (host_number BETWEEN 1 AND 65535),
    PRIMARY KEY (instance, position)
);
-- No address is given twice.
CREATE UNIQUE INDEX nics_host ON nics (network, host_number);

-- Ports of nodes that lead to instances. A port leads to one instance in the whole cluster. Rows go when the instance is
-- deleted.
CREATE TABLE published_ports (
    protocol TEXT NOT NULL CHECK (protocol IN ('tcp', 'udp')),
    node_port BIGINT NOT NULL CHECK (node_port BETWEEN 1 AND 65535),
    instance TEXT NOT NULL REFERENCES instances (id),
    position BIGINT NOT NULL,
    port BIGINT NOT NULL CHECK (port BETWEEN 1 AND 65535),
    PRIMARY KEY (protocol, node_port)
);
CREATE INDEX published_ports_instance ON published_ports (instance);

-- `IP:PORT` at which the node takes packets of networks from other nodes; null if it can have no networks.
ALTER TABLE nodes ADD COLUMN tunnel TEXT;
