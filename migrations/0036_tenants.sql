-- What keeps the versions of one project is listed by indexes, without the rows of others.
CREATE INDEX versions_live ON versions (project) WHERE deleted_at IS NULL;
CREATE INDEX salvage_awaited ON salvage (project) WHERE state = 'awaited';
CREATE INDEX found_instances_project ON found_instances (project);
