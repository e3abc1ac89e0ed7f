//! The only table from a [`Fault`] to the errno that the caller of a system call sees.

use rustix::io::Errno;

use crate::mirror::Fault;

pub(crate) fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::NoSpace => Errno::NOSPC,
        // `Unavailable` becomes EIO only here, after the read deadline: until then the request keeps waiting.
        Fault::Io(_) | Fault::Failed(_) | Fault::Unavailable(_) | Fault::Lost(_) | Fault::Corrupt(_) => Errno::IO,
        Fault::OutOfRange => Errno::FBIG,
        Fault::NotPermitted => Errno::PERM,
        Fault::NotSupported => Errno::OPNOTSUPP,
        Fault::NoData => Errno::NXIO,
        Fault::Removed => Errno::NODEV,
    }
}
