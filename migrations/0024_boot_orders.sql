-- In which order the last boots first read the chunks of a version, merged into one text. It has no place in any list and
-- goes with its version. The boots of one version tell nothing of another, even if their bytes are the same.
CREATE TABLE boot_orders (
    version TEXT PRIMARY KEY REFERENCES versions (id) ON DELETE CASCADE,
    boots BIGINT NOT NULL CHECK (boots > 0),
    chunks TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
