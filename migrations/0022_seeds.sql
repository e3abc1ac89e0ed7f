-- What the guests of a deployment are told when they first boot. It is a table of its own because user data may have 64 KiB
-- and deployments are read often. A deployment without keys and user data has no row.
CREATE TABLE seeds (
    deployment TEXT PRIMARY KEY REFERENCES deployments (id) ON DELETE CASCADE,
    -- A JSON array of lines as in authorized_keys.
    ssh_keys TEXT NOT NULL,
    -- As its user wrote it. It may have secrets: no list, event, log or answer but its own call may have it.
    user_data TEXT
);
