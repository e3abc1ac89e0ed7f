//! [`Latest`]: the newest value of a `watch` channel, as a copy.
//!
//! `borrow` of such a channel gives a guard that holds a lock for reading, and a temporary guard lives until the end of its
//! statement: in the literal of a struct it lives while all other fields are computed. If one of those borrows the same
//! channel, and a writer came between the two, the second waits for the writer and the writer for the first, for ever. An agent
//! stopped like this. So `clippy.toml` forbids `borrow`, and nobody holds such a guard.

use tokio::sync::watch;

/// Copies the newest value of a channel.
pub(crate) trait Latest<T> {
    /// The newest value.
    fn latest(&self) -> T;
}

impl<T: Clone> Latest<T> for watch::Sender<T> {
    #[expect(clippy::disallowed_methods, reason = "the guard ends here")]
    fn latest(&self) -> T {
        self.borrow().clone()
    }
}

impl<T: Clone> Latest<T> for watch::Receiver<T> {
    #[expect(clippy::disallowed_methods, reason = "the guard ends here")]
    fn latest(&self) -> T {
        self.borrow().clone()
    }
}

/// The newest value, which then counts as seen: `changed` waits for the next one.
#[expect(clippy::disallowed_methods, reason = "the guard ends here")]
pub(crate) fn latest_seen<T: Clone>(of: &mut watch::Receiver<T>) -> T {
    of.borrow_and_update().clone()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    /// Both values are read in one expression while another thread writes all the time.
    #[test]
    fn two_values_are_read_in_one_expression_beside_a_writer() {
        let channel = Arc::new(watch::Sender::new(0_u64));
        let writing = std::thread::spawn({
            let channel = channel.clone();
            move || (1..200_000).for_each(|n| _ = channel.send_replace(n))
        });
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while channel.latest() < 199_999 {
                let (first, second) = (channel.latest(), channel.latest());
                assert!(first <= second);
            }
            let _ = done.send(());
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever");
        writing.join().expect("it ends");
    }
}
