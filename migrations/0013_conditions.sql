-- What people should know about an instance, as its node last reported it: a list of `{kind, detail}` in JSON.
ALTER TABLE instances ADD COLUMN conditions TEXT NOT NULL DEFAULT '[]';
