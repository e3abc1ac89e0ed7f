//! System calls on the raw files of disks. Each has a bound: a call that hangs fails the test and does not hang it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    time::Duration,
};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::ops::Place;

/// A read that finds no source of its bytes ends after 60 s with an error.
const BOUND: Duration = Duration::from_secs(90);

/// Runs system calls on a disk and fails the test if they take too long.
async fn bounded<T: Send + 'static>(
    what: String,
    calls: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::time::timeout(BOUND, tokio::task::spawn_blocking(calls)).await;
    done.unwrap_or_else(|_| panic!("{what} hangs: no answer within {BOUND:?}")).expect("the calls do not panic")
}

pub(super) async fn read(path: &str, place: Place) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    bounded(format!("a read of {path}"), move || {
        let mut bytes = vec![0; place.length];
        File::open(&path)?.read_exact_at(&mut bytes, place.at as u64)?;
        Ok(bytes)
    })
    .await
}

pub(super) async fn read_whole(path: &str) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    bounded(format!("a read of {path}"), move || std::fs::read(path)).await
}

/// Writes, with `O_DSYNC` if it is to be durable.
pub(super) async fn write(path: &str, at: usize, data: Vec<u8>, durable: bool) -> io::Result<()> {
    let path = path.to_owned();
    bounded(format!("a write to {path}"), move || {
        let mut options = OpenOptions::new();
        if durable {
            options.custom_flags(i32::try_from(OFlags::DSYNC.bits()).expect("a flag"));
        }
        options.write(true).open(&path)?.write_all_at(&data, at as u64)
    })
    .await
}

pub(super) async fn discard(path: &str, place: Place, punch: bool) -> io::Result<()> {
    let path = path.to_owned();
    bounded(format!("fallocate on {path}"), move || {
        let file = OpenOptions::new().write(true).open(&path)?;
        let how = if punch { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        Ok(fallocate(&file, how | FallocateFlags::KEEP_SIZE, place.at as u64, place.length as u64)?)
    })
    .await
}

pub(super) async fn flush(path: &str) -> io::Result<()> {
    let path = path.to_owned();
    bounded(format!("fsync of {path}"), move || OpenOptions::new().write(true).open(&path)?.sync_all()).await
}

/// Changes the size of the file, which no disk allows.
pub(super) async fn resize(path: &str, size: u64) -> io::Result<()> {
    let path = path.to_owned();
    bounded(format!("ftruncate of {path}"), move || OpenOptions::new().write(true).open(&path)?.set_len(size)).await
}

/// Checks that a program cannot write to the path of a disk that is not served: it gets an error, and no file appears.
pub(super) async fn must_refuse(path: &str, why: &str) {
    let name = path.to_owned();
    let written = bounded(format!("a write to {path}, {why},"), move || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&name)?;
        file.write_all_at(&[7; 4096], 0)?;
        file.sync_all()
    })
    .await;
    assert!(written.is_err(), "{path} took a write and a flush, {why}: they are on no disk");
}
