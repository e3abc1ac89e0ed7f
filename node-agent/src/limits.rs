//! The limits that the kernel puts on this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are enough for every node: a disk needs four in the agent and one in the holder.
const DESCRIPTORS: u64 = 1 << 20;

/// Lets this process open as many files as the system allows. Shells and service managers start programs with 1,024,
/// which is right for programs that use select(2). This one does not.
///
/// A refusal is not an error: fewer disks fit then, and what does not fit says so.
pub fn raise_descriptors() {
    let before = getrlimit(Resource::Nofile);
    // The hard limit may be raised by root only, and not beyond the system's own.
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let wanted = DESCRIPTORS.min(most.unwrap_or(DESCRIPTORS));
    let reach = |limit: u64| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) });
    let hard = before.maximum.unwrap_or(wanted);
    let raised = reach(wanted.max(hard)).or_else(|_refused| reach(hard));
    if let Err(error) = raised {
        let error = io::Error::from(error);
        tracing::warn!(error = %error, limit = before.current, "the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_raised_as_far_as_allowed() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS);
        setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(hard) }).expect("less is allowed");
        raise_descriptors();
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|now| now >= hard));
    }
}
