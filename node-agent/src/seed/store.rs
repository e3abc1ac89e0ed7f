//! The files of the seed disks of this node, `DATA/seeds/<instance>.img`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use muster_api::InstanceId;

use super::{files::SeedFile, image::image};

/// The seed disks of a node.
#[derive(Clone, Debug)]
pub struct Seeds {
    dir: PathBuf,
    /// User and group that QEMU runs as.
    owner: (u32, u32),
}

impl Seeds {
    /// The seed disks below `data_dir`. Those of instances that are not `here` were left by an agent that was killed, and are
    /// removed.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn open(data_dir: &Path, owner: (u32, u32), here: impl Fn(InstanceId) -> bool) -> io::Result<Self> {
        let dir = data_dir.join("seeds");
        // QEMU's user may enter the folder, but not list it: it reaches only the files it is told about.
        DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let image =
                path.extension().is_some_and(|end| end == "img").then(|| path.file_stem()?.to_str()?.parse().ok());
            if !image.flatten().is_some_and(&here) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { dir, owner })
    }

    /// Where the seed disk of an instance is.
    #[must_use]
    pub fn path(&self, instance: InstanceId) -> PathBuf {
        self.dir.join(format!("{instance}.img"))
    }

    /// Makes the seed disk of an instance have these files, and returns its path.
    ///
    /// # Errors
    /// The error of the file system, also if the files do not fit.
    pub fn ensure(&self, instance: InstanceId, files: &[SeedFile]) -> io::Result<PathBuf> {
        let (path, wanted) = (self.path(instance), image(files)?);
        if fs::read(&path).is_ok_and(|there| there == wanted) {
            return Ok(path);
        }
        // A guest that still runs keeps the file that it has open.
        let new = path.with_extension("new");
        ignore_absent(fs::remove_file(&new))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&new)?;
        write_sparse(&mut file, &wanted)?;
        fchown(&file, Some(self.owner.0), Some(self.owner.1))?;
        fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Removes the seed disk of an instance, if there is one.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn remove(&self, instance: InstanceId) -> io::Result<()> {
        ignore_absent(fs::remove_file(self.path(instance)))
    }
}

/// Writes what is not zero. Most of a seed disk is.
fn write_sparse(file: &mut File, content: &[u8]) -> io::Result<()> {
    const BLOCK_BYTES: usize = 4096;
    for (block, number) in content.chunks(BLOCK_BYTES).zip(0..) {
        if block.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(number * BLOCK_BYTES as u64))?;
            file.write_all(block)?;
        }
    }
    file.set_len(content.len() as u64)
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn open(dir: &Path, here: &[InstanceId]) -> Seeds {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Seeds::open(dir, own, |instance| here.contains(&instance)).unwrap()
    }

    #[test]
    fn a_seed_disk_is_written_again_only_when_its_content_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (seeds, instance) = (open(dir.path(), &[]), InstanceId::generate());
        let first = [("meta-data", "one".to_owned())];
        let path = seeds.ensure(instance, &first).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid()), (0o400, rustix::process::geteuid().as_raw()));
        assert!(meta.blocks() * 512 < 64 << 10, "what is zero takes no space: {} blocks", meta.blocks());
        assert_eq!(fs::read(&path).unwrap(), image(&first).unwrap());
        seeds.ensure(instance, &first).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), meta.ino(), "nothing was written");
        // What somebody damaged is made anew.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "damaged").unwrap();
        seeds.ensure(instance, &[("meta-data", "two".to_owned())]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), image(&[("meta-data", "two".to_owned())]).unwrap());
        seeds.remove(instance).unwrap();
        seeds.remove(instance).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("seeds")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (here, gone) = (InstanceId::generate(), InstanceId::generate());
        let seeds = open(dir.path(), &[]);
        let kept = seeds.ensure(here, &[]).unwrap();
        seeds.ensure(gone, &[]).unwrap();
        fs::write(kept.with_extension("new"), "half").unwrap();
        open(dir.path(), &[here]);
        let left: Vec<_> = fs::read_dir(dir.path().join("seeds")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [kept]);
    }
}
