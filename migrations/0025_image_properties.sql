-- What is known of the system on an image: JSON with the operating system, the user for signing in, least disk and memory.
ALTER TABLE images ADD COLUMN properties TEXT NOT NULL DEFAULT '{}';
