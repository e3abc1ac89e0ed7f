-- Sessions of browsers. Name, role and project are those of the token, which never change. A row goes with its token.
-- Of the secret only its SHA-256 is kept, as with tokens. A row is never changed but for last_used_at.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    token_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'tenant')),
    project TEXT,
    secret_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT,
    address TEXT,
    agent TEXT,
    seq BIGINT NOT NULL UNIQUE,
    CHECK ((role = 'tenant') = (project IS NOT NULL))
);
CREATE INDEX sessions_by_token ON sessions (token, seq);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Links that sign a browser in. Whoever signs in with one deletes its row in the same transaction.
CREATE TABLE sign_in_links (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    secret_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sign_in_links_by_token ON sign_in_links (token);
CREATE INDEX sign_in_links_by_end ON sign_in_links (expires_at);
