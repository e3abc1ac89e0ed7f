-- What can boot the disk, as its first sectors told when it was imported. Nobody looked at those imported before.
ALTER TABLE versions ADD COLUMN boot TEXT NOT NULL DEFAULT 'unknown' CHECK (boot IN ('bios', 'uefi_only', 'unknown'));
