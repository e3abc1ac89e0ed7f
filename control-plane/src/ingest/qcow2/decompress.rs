//! Expands one compressed cluster to exactly one cluster.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::Compression;

/// Largest window that a zstd frame may ask for: 8 MiB. A cluster has at most 2 MiB, but other programs than QEMU may
/// choose larger windows; without a limit a frame could ask for gigabytes.
const WINDOW_LOG_MAX: u32 = 23;

/// A decompressor. It is kept between clusters because setting one up costs more than expanding a small cluster.
pub(super) enum Expander {
    Deflate(Box<Decompress>),
    Zstd(DCtx<'static>),
}

impl Expander {
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::Deflate => Self::Deflate(Box::new(Decompress::new(false))),
            Compression::Zstd => {
                let mut context = DCtx::create();
                context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).expect("23 is between 10 and 31");
                Self::Zstd(context)
            }
        }
    }

    /// Fills `out` from the beginning of `input`, and stops when `out` is full: the file stores the length of a
    /// compressed cluster in sectors, so that bytes of the next one may follow in `input`.
    pub(super) fn expand(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        let got = match self {
            Self::Deflate(context) => inflate(context, input, out)?,
            Self::Zstd(context) => decompress(context, input, out)?,
        };
        if got == out.len() { Ok(()) } else { Err(format!("it holds {got} bytes instead of {}", out.len())) }
    }
}

fn inflate(context: &mut Decompress, input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let in_memory = |bytes: u64| usize::try_from(bytes).expect("not more than the buffers have");
    context.reset(false);
    loop {
        let (taken, made) = (in_memory(context.total_in()), in_memory(context.total_out()));
        if made == out.len() {
            return Ok(made);
        }
        let status = context
            .decompress(&input[taken..], &mut out[made..], FlushDecompress::None)
            .map_err(|e| format!("bad deflate data: {e}"))?;
        let now = (in_memory(context.total_in()), in_memory(context.total_out()));
        if status == Status::StreamEnd || now == (taken, made) {
            return Ok(now.1);
        }
    }
}

fn decompress(context: &mut DCtx<'static>, input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let broken = |code| format!("bad zstd data: {}", get_error_name(code));
    context.reset(ResetDirective::SessionOnly).map_err(broken)?;
    let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(out));
    loop {
        let before = (from.pos(), to.pos());
        context.decompress_stream(&mut to, &mut from).map_err(broken)?;
        if to.pos() == to.capacity() || before == (from.pos(), to.pos()) {
            return Ok(to.pos());
        }
    }
}
