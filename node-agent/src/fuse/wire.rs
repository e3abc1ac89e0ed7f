//! The FUSE protocol: decodes requests of the kernel and encodes replies.
//!
//! Numbers are in the machine's own byte order. The layouts are those of `linux/fuse.h`, protocol 7.31 and later (Linux
//! 5.4). Only the requests that a file system with one regular file gets are decoded.
//!
//! ```text
//! request   | length u32 | opcode u32 | unique u64 | node u64 | uid, gid, pid u32 | extensions u16, 0 u16 | arguments, data
//! answer    | length u32 | -errno i32 | unique u64 | result
//! notice    | length u32 | code i32   | 0 u64      | arguments
//! ```

/// Bytes of a request before its arguments.
const REQUEST_HEADER_BYTES: usize = 40;
/// Bytes of a WRITE before its data: the header and its arguments.
pub(super) const WRITE_DATA_AT: usize = REQUEST_HEADER_BYTES + 40;
/// Bytes of an answer before its result.
const ANSWER_HEADER_BYTES: usize = 16;
/// The unit in which the kernel is told the largest request.
pub(super) const PAGE_BYTES: u32 = 4096;

/// The protocol spoken here, `MAJOR.MINOR`. The kernel may be newer or older and uses the older of both.
const MAJOR: u32 = 7;
const MINOR: u32 = 38;
/// Oldest usable protocol of a kernel: the first with both LSEEK and `max_pages`.
const MINOR_MIN: u32 = 31;

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const DESTROY: u32 = 38;
const IOCTL: u32 = 39;
const BATCH_FORGET: u32 = 42;
const FALLOCATE: u32 = 43;
const LSEEK: u32 = 46;

/// Length of a file handle, where it is skipped because the answer does not depend on it.
const HANDLE_BYTES: usize = 8;

// Bits of a SETATTR that say which attributes it sets.
const SET_MODE: u32 = 1 << 0;
const SET_UID: u32 = 1 << 1;
const SET_GID: u32 = 1 << 2;
const SET_SIZE: u32 = 1 << 3;

const INIT_ASYNC_READ: u32 = 1 << 0;
const INIT_BIG_WRITES: u32 = 1 << 5;
const INIT_ASYNC_DIO: u32 = 1 << 15;
const INIT_MAX_PAGES: u32 = 1 << 22;

/// Answer to OPEN: requests of this open bypass the page cache.
pub(super) const OPEN_DIRECT_IO: u32 = 1 << 0;
/// Answer to OPEN: pages cached by earlier opens are still valid.
pub(super) const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// Answer to OPEN: the kernel may send direct writes in parallel.
pub(super) const OPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

const NOTIFY_INVAL_INODE: i32 = 2;

/// Number of the only inode.
const ROOT: u64 = 1;

/// A decoded request. It borrows from the memory that the request was read into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// The kernel's number for this request, which its answer repeats.
    pub(super) unique: u64,
    pub(super) operation: Operation<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    Init(Hello),
    GetAttr,
    SetAttr(SetAttr),
    Open {
        flags: i32,
    },
    Release {
        handle: u64,
    },
    Flush,
    Read {
        offset: u64,
        bytes: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        /// Flags of the open file, and those that this request adds (`RWF_DSYNC`).
        flags: i32,
        data: &'a [u8],
    },
    Fsync,
    Fallocate {
        offset: u64,
        bytes: u64,
        mode: i32,
    },
    Lseek {
        offset: u64,
        whence: i32,
    },
    StatFs,
    Ioctl,
    /// The kernel forgets a name or an inode. It expects no answer.
    Forget,
    /// The last mount of the connection is gone.
    Destroy,
    /// An operation that is not supported here.
    Other,
}

/// Arguments of INIT: the kernel's protocol and what it can do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    major: u32,
    minor: u32,
    readahead_bytes_max: u32,
    flags: u32,
}

/// Attributes to set. Times are not kept, so they are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SetAttr {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Why a request cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The header is incomplete, or its length is wrong, so the request cannot be answered either.
    Header,
    /// The arguments are too short, or contradict the length of the request.
    Arguments { unique: u64, opcode: u32 },
}

/// Reads the numbers of a request one after the other. Each method returns `None` at the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*number))
    }

    fn i32(&mut self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }
}

impl<'a> Request<'a> {
    /// Decodes one request. `bytes` is the result of one read of the device.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut header = Fields(bytes);
        let (length, opcode, unique) = (header.u32(), header.u32(), header.u64());
        let (Some(length), Some(opcode), Some(unique)) = (length, opcode, unique) else {
            return Err(Malformed::Header);
        };
        let arguments = bytes.get(REQUEST_HEADER_BYTES..).ok_or(Malformed::Header)?;
        if usize::try_from(length) != Ok(bytes.len()) {
            return Err(Malformed::Header);
        }
        let operation = Operation::parse(opcode, arguments).ok_or(Malformed::Arguments { unique, opcode })?;
        Ok(Self { unique, operation })
    }
}

impl<'a> Operation<'a> {
    fn parse(opcode: u32, arguments: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(arguments);
        Some(match opcode {
            GETATTR => Self::GetAttr,
            SETATTR => Self::SetAttr(SetAttr::parse(fields)?),
            OPEN => Self::Open { flags: fields.i32()? },
            READ => {
                fields.skip(HANDLE_BYTES)?;
                Self::Read { offset: fields.u64()?, bytes: fields.u32()? }
            }
            WRITE => {
                let (handle, offset, bytes) = (fields.u64()?, fields.u64()?, fields.u32()?);
                fields.skip(12)?;
                let flags = fields.i32()?;
                let data = arguments.get(WRITE_DATA_AT - REQUEST_HEADER_BYTES..)?;
                (usize::try_from(bytes) == Ok(data.len())).then_some(Self::Write { handle, offset, flags, data })?
            }
            STATFS => Self::StatFs,
            RELEASE => Self::Release { handle: fields.u64()? },
            FSYNC => Self::Fsync,
            FLUSH => Self::Flush,
            INIT => Self::Init(Hello {
                major: fields.u32()?,
                minor: fields.u32()?,
                readahead_bytes_max: fields.u32()?,
                flags: fields.u32()?,
            }),
            DESTROY => Self::Destroy,
            IOCTL => Self::Ioctl,
            FALLOCATE => {
                fields.skip(HANDLE_BYTES)?;
                Self::Fallocate { offset: fields.u64()?, bytes: fields.u64()?, mode: fields.i32()? }
            }
            LSEEK => {
                fields.skip(HANDLE_BYTES)?;
                Self::Lseek { offset: fields.u64()?, whence: fields.i32()? }
            }
            FORGET | BATCH_FORGET => Self::Forget,
            _ => Self::Other,
        })
    }
}

impl SetAttr {
    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let valid = fields.u32()?;
        fields.skip(12)?;
        let size = fields.u64()?;
        // Skip the lock owner and the times.
        fields.skip(8 + 3 * 8 + 3 * 4)?;
        let mode = fields.u32()?;
        fields.skip(4)?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        let given = |bit: u32| valid & bit != 0;
        Some(Self {
            size: given(SET_SIZE).then_some(size),
            mode: given(SET_MODE).then_some(mode),
            uid: given(SET_UID).then_some(uid),
            gid: given(SET_GID).then_some(gid),
        })
    }
}

/// Limits that the answer to INIT sets for the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Pages of the largest READ and WRITE.
    pub(super) request_pages_max: u16,
    /// Number of asynchronous requests in flight above which the kernel makes their callers wait.
    pub(super) in_flight_max: u16,
}

/// The answer to INIT, which settles protocol version and limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// The connection is ready after this answer.
    Agreed(Answer),
    /// The kernel speaks a newer major protocol. Told ours, it sends INIT once more.
    AskAgain(Answer),
}

impl Hello {
    /// The answer to the kernel, or a text that says why its FUSE cannot be used.
    pub(super) fn answer(&self, terms: Terms) -> Result<Greeting, String> {
        let mut answer = Answer::new();
        answer.u32(MAJOR).u32(MINOR);
        if self.major > MAJOR {
            return Ok(Greeting::AskAgain(answer.zeros(64 - 8)));
        }
        if self.major < MAJOR || self.minor < MINOR_MIN {
            return Err(format!(
                "the kernel's FUSE protocol is {}.{}, at least {MAJOR}.{MINOR_MIN} (Linux 5.4) is needed",
                self.major, self.minor
            ));
        }
        if self.flags & INIT_MAX_PAGES == 0 {
            return Err("the kernel's FUSE does not support requests of more than 128 KiB".to_owned());
        }
        let flags = self.flags & (INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_ASYNC_DIO | INIT_MAX_PAGES);
        answer.u32(self.readahead_bytes_max).u32(flags);
        answer.u16(terms.in_flight_max).u16(terms.in_flight_max);
        // The 1 is the granularity of times, in nanoseconds.
        answer.u32(u32::from(terms.request_pages_max) * PAGE_BYTES).u32(1);
        answer.u16(terms.request_pages_max).u16(0);
        Ok(Greeting::Agreed(answer.zeros(4 + 7 * 4)))
    }
}

/// The result part of an answer, without the header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn new() -> Self {
        Self(Vec::with_capacity(128))
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn zeros(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer to OPEN. The kernel repeats `handle` in later requests on the open file.
    pub(super) fn opened(handle: u64, flags: u32) -> Self {
        let mut answer = Self::new();
        answer.u64(handle).u32(flags).u32(0);
        answer
    }

    /// The answer to WRITE: how many bytes were taken.
    pub(super) fn written(bytes: u32) -> Self {
        let mut answer = Self::new();
        answer.u32(bytes).u32(0);
        answer
    }

    /// The answer to LSEEK: the place that was found, in bytes from the start.
    pub(super) fn offset(offset: u64) -> Self {
        let mut answer = Self::new();
        answer.u64(offset);
        answer
    }

    /// The answer to STATFS: a file system with one file and no free space.
    pub(super) fn statfs(blocks: u64, block_bytes: u32) -> Self {
        let mut answer = Self::new();
        answer.u64(blocks).u64(0).u64(0).u64(1).u64(0).u32(block_bytes).u32(255).u32(block_bytes);
        answer.zeros(4 + 6 * 4)
    }

    /// The answer to GETATTR and SETATTR.
    pub(super) fn attr(attr: &Attr, valid_seconds: u64) -> Self {
        let mut answer = Self::new();
        answer.u64(valid_seconds).u32(0).u32(0);
        answer.u64(ROOT).u64(attr.size_bytes).u64(attr.size_bytes / 512);
        // Times of access, modification and change are not kept.
        answer.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        answer.u32(libc::S_IFREG | attr.permissions).u32(1).u32(attr.uid).u32(attr.gid).u32(0);
        answer.u32(4096).u32(0);
        answer
    }
}

/// Attributes of the only file: the raw disk.
#[derive(Debug)]
pub(super) struct Attr {
    pub(super) size_bytes: u64,
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The header of an answer whose result has `bytes` bytes. `errno` is 0 for success.
pub(super) fn answer_header(unique: u64, errno: i32, bytes: usize) -> [u8; ANSWER_HEADER_BYTES] {
    header(unique, -errno, bytes)
}

/// A message that makes the kernel drop its cached pages of `offset..offset + bytes`.
pub(super) fn forget_pages_notice(offset: i64, bytes: i64) -> Vec<u8> {
    let mut notice = header(0, NOTIFY_INVAL_INODE, 24).to_vec();
    notice.extend(ROOT.to_ne_bytes());
    notice.extend(offset.to_ne_bytes());
    notice.extend(bytes.to_ne_bytes());
    notice
}

fn header(unique: u64, code: i32, bytes: usize) -> [u8; ANSWER_HEADER_BYTES] {
    let length =
        u32::try_from(ANSWER_HEADER_BYTES + bytes).expect("a result is at most as long as the largest request");
    let mut header = [0; ANSWER_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, arguments: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(REQUEST_HEADER_BYTES + arguments.len()).expect("short").to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7u64.to_ne_bytes());
        bytes.resize(REQUEST_HEADER_BYTES, 0);
        bytes.extend(arguments);
        bytes
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_write_is_decoded_without_moving_its_data() {
        let mut arguments = words(&[1, 8192, 4, 0, 0]);
        arguments[32..36].copy_from_slice(&libc::O_DSYNC.to_ne_bytes());
        arguments.extend(b"data");
        let bytes = request(16, &arguments);
        let parsed = Request::parse(&bytes).expect("it is well-formed");
        let wanted = Operation::Write { handle: 1, offset: 8192, flags: libc::O_DSYNC, data: b"data" };
        assert_eq!(parsed, Request { unique: 7, operation: wanted });
    }

    #[test]
    fn only_attributes_marked_as_given_are_set() {
        let mut arguments = words(&[0b1010, 0, 4096, 0, 0, 0, 0]);
        arguments.extend([0; 12]);
        for field in [0o600u32, 0, 64_055, 108, 0] {
            arguments.extend(field.to_ne_bytes());
        }
        let bytes = request(4, &arguments);
        let wanted = SetAttr { size: Some(4096), uid: Some(64_055), ..SetAttr::default() };
        assert_eq!(Request::parse(&bytes).map(|r| r.operation), Ok(Operation::SetAttr(wanted)));
    }

    #[test]
    fn a_request_truncated_anywhere_is_refused_without_a_panic() {
        for opcode in 0..64 {
            let whole = request(opcode, &[0; 88]);
            for length in 0..whole.len() {
                let torn = Request::parse(&whole[..length]);
                assert_eq!(torn, Err(Malformed::Header), "opcode {opcode}, {length} bytes");
                let mut short = whole[..length].to_vec();
                if let Some(place) = short.get_mut(..4) {
                    place.copy_from_slice(&u32::try_from(length).expect("short").to_ne_bytes());
                }
                let _must_not_panic = Request::parse(&short);
            }
        }
        let claims_more_data_than_it_has = request(16, &words(&[0, 0, 5, 0, 0]));
        assert_eq!(Request::parse(&claims_more_data_than_it_has), Err(Malformed::Arguments { unique: 7, opcode: 16 }));
    }

    #[test]
    fn an_old_kernel_is_refused_and_a_newer_one_is_asked_to_use_our_protocol() {
        let terms = Terms { request_pages_max: 256, in_flight_max: 64 };
        let flags = INIT_MAX_PAGES;
        let old = Hello { major: 7, minor: 27, readahead_bytes_max: 0, flags };
        assert!(old.answer(terms).is_err_and(|why| why.contains("7.27")));
        let newer = Hello { major: 8, minor: 0, readahead_bytes_max: 0, flags };
        assert!(matches!(newer.answer(terms), Ok(Greeting::AskAgain(answer)) if answer.bytes().len() == 64));
        let fits = Hello { major: 7, minor: 45, readahead_bytes_max: 131_072, flags: u32::MAX };
        let Ok(Greeting::Agreed(answer)) = fits.answer(terms) else { panic!("it fits") };
        // Version, readahead, flags (async reads, big writes, async direct I/O, max_pages), 2 x in flight, largest
        // request, granularity of times, pages of a request.
        let agreed = "07000000 26000000 00000200 21804000 4000 4000 00001000 01000000 0001";
        assert_eq!(hex::encode(answer.bytes()), format!("{:0<128}", agreed.replace(' ', "")));
    }

    /// The expected bytes were written by hand from `linux/fuse.h`, for a little-endian machine.
    #[test]
    fn answers_have_the_layout_of_the_kernel_header() {
        let attr = Attr { size_bytes: 8192, permissions: 0o600, uid: 64_055, gid: 108 };
        let wanted = [
            // Valid for 3600 s.
            "100e000000000000 00000000 00000000",
            // Inode, size, 512-byte blocks.
            "0100000000000000 0020000000000000 1000000000000000",
            // Times.
            "0000000000000000 0000000000000000 0000000000000000 00000000 00000000 00000000",
            // Mode, links, owner and group, device, block size, flags.
            "80810000 01000000 37fa0000 6c000000 00000000 00100000 00000000",
        ];
        assert_eq!(hex::encode(Answer::attr(&attr, 3600).bytes()), wanted.concat().replace(' ', ""));
        let statfs = "0200000000000000 0000000000000000 0000000000000000 0100000000000000 0000000000000000 \
                      00100000 ff000000 00100000 00000000";
        assert_eq!(hex::encode(Answer::statfs(2, 4096).bytes()), format!("{:0<160}", statfs.replace(' ', "")));
        assert_eq!(hex::encode(Answer::opened(1, OPEN_KEEP_CACHE).bytes()), "01000000000000000200000000000000");
        assert_eq!(hex::encode(Answer::written(512).bytes()), "0002000000000000");
        assert_eq!(hex::encode(Answer::offset(4096).bytes()), "0010000000000000");
        assert_eq!(hex::encode(answer_header(7, 5, 0)), "10000000fbffffff0700000000000000");
        assert_eq!(hex::encode(answer_header(7, 0, 8)), "18000000000000000700000000000000");
        let notice = "28000000 02000000 0000000000000000 0100000000000000 0010000000000000 0002000000000000";
        assert_eq!(hex::encode(forget_pages_notice(4096, 512)), notice.replace(' ', ""));
    }

    #[test]
    fn arguments_are_read_from_the_places_of_the_kernel_header() {
        let read = request(READ, &words(&[9, 4096, 512, 0, 0]));
        assert!(matches!(parse(&read), Operation::Read { offset: 4096, bytes: 512 }));
        let open = request(OPEN, &words(&[0x4002]));
        assert!(matches!(parse(&open), Operation::Open { flags: 0x4002 }));
        let release = request(RELEASE, &words(&[1, 0, 0]));
        assert!(matches!(parse(&release), Operation::Release { handle: 1 }));
        let fallocate = request(FALLOCATE, &words(&[9, 4096, 8192, 3]));
        assert!(matches!(parse(&fallocate), Operation::Fallocate { offset: 4096, bytes: 8192, mode: 3 }));
        let lseek = request(LSEEK, &words(&[9, 4096, 4]));
        assert!(matches!(parse(&lseek), Operation::Lseek { offset: 4096, whence: 4 }));
    }

    fn parse(bytes: &[u8]) -> Operation<'_> {
        Request::parse(bytes).expect("it is well-formed").operation
    }
}
