-- What starts the boot loader on a disk: found out at an import, and for the disk of an instance what the instance had.
ALTER TABLE versions ADD COLUMN firmware TEXT NOT NULL DEFAULT 'bios' CHECK (firmware IN ('bios', 'uefi', 'uefi_secure'));
UPDATE versions SET firmware = 'uefi' WHERE boot = 'uefi_only';

-- What members of a deployment have. All that were made before have a BIOS.
ALTER TABLE deployments ADD COLUMN firmware TEXT NOT NULL DEFAULT 'bios' CHECK (firmware IN ('bios', 'uefi', 'uefi_secure'));
ALTER TABLE deployments ADD COLUMN tpm BIGINT NOT NULL DEFAULT 0 CHECK (tpm IN (0, 1));

-- What machines on a node can have that not all nodes offer, as its agent last said: a JSON list of words.
ALTER TABLE nodes ADD COLUMN features TEXT NOT NULL DEFAULT '[]';
