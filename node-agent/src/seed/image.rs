//! A FAT file system in memory. Pure.

use std::io::{self, Cursor, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use super::files::SeedFile;

/// Size of a seed disk in bytes. The longest keys and user data fit with room to spare.
pub const IMAGE_BYTES: usize = 1 << 20;
/// The label that guests look for.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// The number of the file system, the same on all seed disks, so that equal content has equal bytes.
const VOLUME_ID: u32 = 0x4d55_5354;

/// A file system with these files.
///
/// # Errors
/// If the files do not fit.
pub fn image(files: &[SeedFile]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; IMAGE_BYTES]);
    format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL).volume_id(VOLUME_ID))?;
    let system = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.write_all(content.as_bytes())?;
        file.flush()?;
    }
    system.unmount()?;
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::io::Read as _;

    use muster_api::{
        ssh_key::{SSH_KEY_BYTES_MAX, SSH_KEYS_MAX},
        user_data::USER_DATA_BYTES_MAX,
    };

    use super::*;

    #[test]
    fn the_files_are_read_back_from_a_file_system_with_the_label_that_guests_look_for() {
        let longest = "\"".repeat(2 * SSH_KEYS_MAX * SSH_KEY_BYTES_MAX);
        let files = [("meta-data", longest), ("user-data", "x".repeat(USER_DATA_BYTES_MAX)), ("empty", String::new())];
        let mut bytes = image(&files).unwrap();
        assert_eq!(bytes, image(&files).unwrap(), "the same files have the same bytes");
        assert_eq!(bytes.len(), IMAGE_BYTES);
        let system = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
        assert_eq!(system.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        for (name, content) in &files {
            let mut read = String::new();
            system.root_dir().open_file(name).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(&read, content, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(image(&[("user-data", "x".repeat(IMAGE_BYTES))]).is_err());
    }
}
