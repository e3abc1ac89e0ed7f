//! The one table from facts to errno.

use fuser::Errno;

use crate::mirror::Fault;

/// What the caller of a system call sees.
pub(crate) fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::NoSpace => Errno::ENOSPC,
        // A lost source is never EIO at once: this is after the deadline.
        Fault::Io(_) | Fault::Failed(_) | Fault::Unavailable(_) | Fault::Corrupt(_) => Errno::EIO,
        Fault::OutOfRange => Errno::EFBIG,
        Fault::NotPermitted => Errno::EPERM,
        Fault::NotSupported => Errno::EOPNOTSUPP,
        Fault::NoData => Errno::ENXIO,
        Fault::Removed => Errno::ENODEV,
    }
}
