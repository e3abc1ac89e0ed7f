-- The agent process that may act as the node: each start has its own id, and names the run of its folder that it follows.
-- NULL until a process registers.
ALTER TABLE nodes ADD COLUMN run TEXT;
-- When that process registered.
ALTER TABLE nodes ADD COLUMN run_at BIGINT;
