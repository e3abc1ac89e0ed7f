//! The log of an instance's serial console, `DATA/console/<instance>.log`. It is kept over restarts and bounded in
//! size.
//!
//! The agent writes a line before each start, so that the output since a start can be found again, also by another
//! agent process:
//!
//! ```text
//! ...output of boot 1...
//! [muster] boot 2 ------------------------------------------------
//! ...output of boot 2...
//! ```
//!
//! While the domain exists, QEMU writes to the log through libvirt's `virtlogd`, which moves the file to `.log.0` at 2
//! MiB and keeps three such files. Without `virtlogd`, QEMU appends to the file without a limit. Then [`bound`] empties
//! it when it is too long; QEMU appends, so it goes on at the start of the file.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use muster_api::InstanceId;

/// Most bytes of earlier output that a start keeps.
const KEPT_BYTES: u64 = 1 << 20;
/// Length at which the log of a running domain is emptied. Only reached without `virtlogd`.
const RUNNING_BYTES_MAX: u64 = 16 << 20;
/// Number of rotated files that `virtlogd` may leave; `.log.0` is the newest.
const ROTATED: u32 = 3;

/// Longest path of a socket: a limit of the kernel, with the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where QEMU makes the socket of an instance's serial console, in the folder of the console logs; `None` if the kernel
/// does not take so long a path.
#[must_use]
pub fn socket(console_dir: &Path, instance: InstanceId) -> Option<PathBuf> {
    let path = console_dir.join(format!("{instance}.sock"));
    (path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(path)
}

/// How the line before the output of a start begins.
const BOUNDARY: &str = "[muster] boot ";

/// The line before the output of a start.
fn boundary(boot: u64) -> String {
    format!("{BOUNDARY}{boot} {:-<48}\n", "")
}

/// All files of one console log, oldest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = (0..ROTATED)
        .rev()
        .map(|n| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        })
        .collect();
    files.push(path.to_owned());
    files
}

/// Shortens the log and marks the beginning of a start. Called before the domain is started; can be repeated.
///
/// # Errors
/// An I/O error.
pub fn begin(path: &Path, boot: u64) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        // QEMU's user may enter the folder, but not list it: it reaches only the files it is told about.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    let mark = boundary(boot);
    let kept = tail(path, KEPT_BYTES)?;
    let long = file_len(path)? > KEPT_BYTES || files(path).iter().rev().skip(1).any(|f| f.exists());
    if long {
        let new = path.with_extension("log.new");
        let mut file = options().create(true).truncate(true).write(true).open(&new)?;
        file.write_all(&kept)?;
        fs::rename(&new, path)?;
        for old in files(path).iter().rev().skip(1) {
            ignore_absent(fs::remove_file(old))?;
        }
    }
    if kept.ends_with(mark.as_bytes()) {
        return Ok(());
    }
    let mut file = options().create(true).append(true).open(path)?;
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        file.write_all(b"\n")?;
    }
    file.write_all(mark.as_bytes())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o640);
    options
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn file_len(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// A place in the output: a byte of one of the files of a log. A file that is moved away keeps its inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    inode: u64,
    offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.inode, self.offset)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a place in a console log is INODE-OFFSET";
        let (inode, offset) = text.split_once('-').ok_or(EXPECTED)?;
        let number = |text: &str| text.parse().map_err(|_| EXPECTED);
        Ok(Self { inode: number(inode)?, offset: number(offset)? })
    }
}

/// Reads the last `bytes` bytes of the output, over all starts. Empty if there is none.
///
/// # Errors
/// An I/O error.
pub fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    Ok(tail_and_end(path, bytes)?.0)
}

/// As [`tail`], with the place after the last byte. While there is no log, that is a place that no file has, and [`after`]
/// begins with the newest start from there.
///
/// # Errors
/// An I/O error.
pub fn tail_and_end(path: &Path, bytes: u64) -> io::Result<(Vec<u8>, Place)> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let (mut left, mut end) = (bytes, None);
    for file in files(path).iter().rev() {
        if left == 0 && end.is_some() {
            break;
        }
        let Some(mut file) = open(file)? else { continue };
        let meta = file.metadata()?;
        let from = meta.len().saturating_sub(left);
        file.seek(SeekFrom::Start(from))?;
        let mut part = Vec::new();
        file.take(left).read_to_end(&mut part)?;
        left -= part.len() as u64;
        end.get_or_insert(Place { inode: meta.ino(), offset: from + part.len() as u64 });
        parts.push(part);
    }
    parts.reverse();
    Ok((parts.concat(), end.unwrap_or_default()))
}

/// Reads what was printed after a place, about `bytes_max` of it at most, and gives the place after that. Nothing before
/// the place is read. If a start has written the log anew since, this is what was printed from the newest start on.
///
/// # Errors
/// An I/O error.
pub fn after(path: &Path, place: Place, bytes_max: u64) -> io::Result<(Vec<u8>, Place)> {
    // Newest first: a file that is moved away meanwhile may be met twice, but none is missed.
    let mut newer: Vec<(u64, File)> = Vec::new();
    for file in files(path).iter().rev() {
        let Some(file) = open(file)? else { continue };
        let inode = file.metadata()?.ino();
        if newer.iter().all(|(known, _)| *known != inode) {
            newer.push((inode, file));
        }
        if inode == place.inode {
            return read_on(newer.into_iter().rev(), place, bytes_max);
        }
    }
    let (kept, end) = tail_and_end(path, KEPT_BYTES)?;
    let from = find_last(&kept, BOUNDARY.as_bytes()).unwrap_or(0);
    Ok((kept[from..].to_vec(), end))
}

/// Reads on in the file of the place and then in the newer ones.
fn read_on(files: impl Iterator<Item = (u64, File)>, mut place: Place, bytes_max: u64) -> io::Result<(Vec<u8>, Place)> {
    let mut read = Vec::new();
    for (inode, mut file) in files {
        if inode != place.inode || file.metadata()?.len() < place.offset {
            // The next file, or one that was emptied.
            place = Place { inode, offset: 0 };
        }
        file.seek(SeekFrom::Start(place.offset))?;
        let left = bytes_max.saturating_sub(read.len() as u64);
        place.offset += file.take(left).read_to_end(&mut read)? as u64;
        if read.len() as u64 >= bytes_max {
            break;
        }
    }
    Ok((read, place))
}

/// Opens a regular file; `None` for anything else. Links are not followed.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether nothing was printed since the start with this boot number, whose line is the last one then.
///
/// # Errors
/// An I/O error.
pub fn is_silent(path: &Path, boot: u64) -> io::Result<bool> {
    let mark = boundary(boot);
    Ok(tail(path, mark.len() as u64)? == mark.as_bytes())
}

/// Empties the log if it is over 16 MiB. Cheap; called regularly while the domain runs.
///
/// # Errors
/// An I/O error.
pub fn bound(path: &Path) -> io::Result<()> {
    if file_len(path)? <= RUNNING_BYTES_MAX {
        return Ok(());
    }
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// Removes the log and its rotated files. It is no error if there are none.
///
/// # Errors
/// An I/O error.
pub fn remove(path: &Path) -> io::Result<()> {
    files(path).iter().try_for_each(|file| ignore_absent(fs::remove_file(file)))
}

/// Searches the output since a start for a text, and reads each byte only once.
#[derive(Clone, Debug)]
pub struct Scan {
    boot: u64,
    /// Inode of the log file and number of bytes read of it. After a rotation the log has another inode.
    read: Option<(u64, u64)>,
    /// The last bytes that were read, because the text may begin in them.
    carry: Vec<u8>,
}

impl Scan {
    /// A search from the beginning of the start with this boot number.
    #[must_use]
    pub const fn new(boot: u64) -> Self {
        Self { boot, read: None, carry: Vec::new() }
    }

    /// Whether `marker` was printed since the start. Reads only the output since the last call.
    ///
    /// # Errors
    /// An I/O error.
    pub fn found(&mut self, path: &Path, marker: &str) -> io::Result<bool> {
        let marker = marker.as_bytes();
        if marker.is_empty() {
            return Ok(true);
        }
        let Some(mut file) = open(path)? else { return Ok(false) };
        let meta = file.metadata()?;
        let new = match self.read {
            Some((inode, offset)) if inode == meta.ino() && offset <= meta.len() => {
                file.seek(SeekFrom::Start(offset))?;
                let mut new = Vec::new();
                file.take(RUNNING_BYTES_MAX).read_to_end(&mut new)?;
                self.read = Some((inode, offset + new.len() as u64));
                new
            }
            // This is the first call, or the file was rotated or emptied: read all that is kept since the line of the
            // start.
            _ => {
                self.read = Some((meta.ino(), meta.len()));
                self.carry.clear();
                let all = tail(path, RUNNING_BYTES_MAX)?;
                let mark = boundary(self.boot);
                match find_last(&all, mark.as_bytes()) {
                    Some(at) => all[at + mark.len()..].to_vec(),
                    None => all,
                }
            }
        };
        self.carry.extend_from_slice(&new);
        let found = self.carry.windows(marker.len()).any(|w| w == marker);
        let keep = self.carry.len().min(marker.len() - 1);
        self.carry.drain(..self.carry.len() - keep);
        Ok(found)
    }
}

fn find_last(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|w| w == what)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn append(path: &Path, text: &str) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_marker_of_an_earlier_start_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console/i.log");
        begin(&path, 1).unwrap();
        append(&path, "hello READY\n");
        assert!(Scan::new(1).found(&path, "READY").unwrap());
        begin(&path, 2).unwrap();
        let mut scan = Scan::new(2);
        assert!(!scan.found(&path, "READY").unwrap());
        append(&path, "booting RE");
        assert!(!scan.found(&path, "READY").unwrap());
        append(&path, "ADY 2");
        assert!(scan.found(&path, "READY").unwrap(), "a marker in two pieces");
        assert!(String::from_utf8(tail(&path, 1 << 20).unwrap()).unwrap().starts_with("[muster] boot 1 "));
    }

    #[test]
    fn a_repeated_begin_writes_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.log");
        begin(&path, 7).unwrap();
        begin(&path, 7).unwrap();
        assert_eq!(tail(&path, 1000).unwrap(), boundary(7).as_bytes());
    }

    #[test]
    fn a_start_is_silent_until_something_is_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.log");
        append(&path, "output of boot 1");
        begin(&path, 2).unwrap();
        assert!(is_silent(&path, 2).unwrap());
        assert!(!is_silent(&path, 1).unwrap());
        append(&path, "x");
        assert!(!is_silent(&path, 2).unwrap());
    }

    #[test]
    fn a_start_shortens_long_and_rotated_logs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.log");
        append(&dir.path().join("i.log.0"), &"a".repeat(900_000));
        append(&path, &"b".repeat(900_000));
        begin(&path, 2).unwrap();
        assert!(file_len(&path).unwrap() <= KEPT_BYTES + 100);
        assert!(!dir.path().join("i.log.0").exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_marker_is_found_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.log");
        begin(&path, 1).unwrap();
        let mut scan = Scan::new(1);
        assert!(!scan.found(&path, "READY").unwrap());
        append(&path, "some READY output");
        fs::rename(&path, dir.path().join("i.log.0")).unwrap();
        append(&path, "x");
        assert!(scan.found(&path, "READY").unwrap());
    }

    #[test]
    fn a_follower_reads_each_byte_once_over_rotations_and_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.log");
        let (nothing, place) = tail_and_end(&path, 10).unwrap();
        assert!(nothing.is_empty());
        append(&path, "old");
        let (first, place) = after(&path, place, 100).unwrap();
        assert_eq!(first, b"old", "all of a log that was not there before");
        append(&path, " new");
        let (part, place) = after(&path, place, 2).unwrap();
        assert_eq!(part, b" n", "no more than was asked for");
        for n in [1, 0] {
            fs::rename(dir.path().join(format!("i.log.{n}")), dir.path().join(format!("i.log.{}", n + 1))).ok();
        }
        fs::rename(&path, dir.path().join("i.log.0")).unwrap();
        append(&path, "er");
        let (part, place) = after(&path, place.to_string().parse().unwrap(), 100).unwrap();
        assert_eq!(part, b"ewer", "the rest of the file that was moved away, and the newer one");
        assert_eq!(after(&path, place, 100).unwrap(), (Vec::new(), place), "nothing new");
        // A start writes the log anew.
        begin(&path, 2).unwrap();
        append(&path, "x");
        let (part, place) = after(&path, place, 100).unwrap();
        assert_eq!(String::from_utf8(part).unwrap(), format!("{}x", boundary(2)));
        // Without a rotation the file is emptied when it is long.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        append(&path, "y");
        assert_eq!(after(&path, place, 100).unwrap().0, b"y");
        assert!("7".parse::<Place>().is_err());
    }
}
