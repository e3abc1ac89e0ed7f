-- The page of one thing shows what happened to it, however much happened to others.
CREATE INDEX events_by_target ON events (target_id, seq);
