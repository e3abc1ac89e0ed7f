-- The summary counts deployments from this index alone.
CREATE INDEX deployments_by_state ON deployments (project, state, all_stopped);
