//! One compressed cluster, expanded to exactly one cluster.

use flate2::{Decompress, FlushDecompress, Status};

use super::Compression;

/// A frame may ask for a window of gigabytes. No cluster is larger than 2 MiB; 8 MiB leaves room for other writers.
const WINDOW_LOG_MAX: u32 = 23;

/// Expanders, kept between clusters because setting one up costs more than a small cluster.
pub(super) struct Expander {
    kind: Kind,
}

enum Kind {
    Deflate(Box<Decompress>),
    Zstd(zstd::zstd_safe::DCtx<'static>),
}

impl Expander {
    pub(super) fn new(compression: Compression) -> Result<Self, String> {
        let kind = match compression {
            Compression::Deflate => Kind::Deflate(Box::new(Decompress::new(false))),
            Compression::Zstd => {
                let mut context = zstd::zstd_safe::DCtx::create();
                let bound = zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX);
                context.set_parameter(bound).map_err(|code| zstd::zstd_safe::get_error_name(code).to_owned())?;
                Kind::Zstd(context)
            }
        };
        Ok(Self { kind })
    }

    /// Fills `out` from the beginning of `input`. What follows in `input` belongs to others (the length of a
    /// compressed cluster is stored in sectors), so an expander stops when `out` is full.
    pub(super) fn expand(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        let got = match &mut self.kind {
            Kind::Deflate(inflate) => {
                inflate.reset(false);
                loop {
                    let (fed, made) = (inflate.total_in(), inflate.total_out());
                    let rest_in = usize::try_from(fed).ok().and_then(|n| input.get(n..)).unwrap_or_default();
                    let rest_out = usize::try_from(made).ok().and_then(|n| out.get_mut(n..)).unwrap_or_default();
                    if rest_out.is_empty() {
                        break;
                    }
                    let status = inflate
                        .decompress(rest_in, rest_out, FlushDecompress::None)
                        .map_err(|e| format!("bad deflate data: {e}"))?;
                    let stuck = inflate.total_in() == fed && inflate.total_out() == made;
                    if status == Status::StreamEnd || stuck {
                        break;
                    }
                }
                usize::try_from(inflate.total_out()).unwrap_or(usize::MAX)
            }
            Kind::Zstd(context) => {
                let broken = |code| format!("bad zstd data: {}", zstd::zstd_safe::get_error_name(code));
                context.reset(zstd::zstd_safe::ResetDirective::SessionOnly).map_err(broken)?;
                let mut from = zstd::zstd_safe::InBuffer::around(input);
                let mut to = zstd::zstd_safe::OutBuffer::around(out);
                loop {
                    let before = (from.pos(), to.pos());
                    context.decompress_stream(&mut to, &mut from).map_err(broken)?;
                    if to.pos() == to.capacity() || before == (from.pos(), to.pos()) {
                        break;
                    }
                }
                to.pos()
            }
        };
        if got == out.len() { Ok(()) } else { Err(format!("it holds {got} bytes instead of {}", out.len())) }
    }
}
