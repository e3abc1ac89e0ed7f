-- A sign-in link that was made in a session goes with it: who ends the session of a stranger must not leave a way back.
ALTER TABLE sign_in_links ADD COLUMN session TEXT REFERENCES sessions (id) ON DELETE CASCADE;
CREATE INDEX sign_in_links_by_session ON sign_in_links (session) WHERE session IS NOT NULL;
