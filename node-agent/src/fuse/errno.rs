//! The one table from facts to errno.

use rustix::io::Errno;

use crate::mirror::Fault;

/// What the caller of a system call sees.
pub(crate) fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::NoSpace => Errno::NOSPC,
        // A lost source is never EIO at once: this is after the deadline.
        Fault::Io(_) | Fault::Failed(_) | Fault::Unavailable(_) | Fault::Corrupt(_) => Errno::IO,
        Fault::OutOfRange => Errno::FBIG,
        Fault::NotPermitted => Errno::PERM,
        Fault::NotSupported => Errno::OPNOTSUPP,
        Fault::NoData => Errno::NXIO,
        Fault::Removed => Errno::NODEV,
    }
}
