//! How slowly a body may come. A sender that gets slower holds its image and an upload's place for ever (I10, I11).
//!
//! Only the time in which the import waits for the sender counts. A pool that takes the bytes slowly is not the sender's
//! fault.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout};

/// The slowest pace that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// Bytes of the body per second, on average.
    pub bytes_per_s: u64,
    /// The time over which the average is taken. A body that brings nothing for so long is ended at any rate.
    pub over: Duration,
}

impl Default for Slowest {
    fn default() -> Self {
        Self { bytes_per_s: 4096, over: Duration::from_secs(60) }
    }
}

/// Why no more of a body comes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    /// It ended too early.
    #[error("the body ended early: {0}")]
    Broken(String),
    /// It comes too slowly.
    #[error("the body comes too slowly: {bytes} bytes in {} s, at least {wanted} have to come", over.as_secs())]
    TooSlow {
        /// What came.
        bytes: u64,
        /// In which time.
        over: Duration,
        /// What had to come in that time.
        wanted: u64,
    },
}

/// The pace of one body.
pub(super) struct Pace {
    slowest: Slowest,
    /// How long the import has waited for the sender since the average was last taken.
    waited: Duration,
    /// What came in that time.
    bytes: u64,
}

impl Pace {
    pub(super) fn new(slowest: Slowest) -> Self {
        Self { slowest, waited: Duration::ZERO, bytes: 0 }
    }

    /// The next part of the body; `None` at its end.
    pub(super) async fn next<B, E>(&mut self, body: &mut B) -> Result<Option<Bytes>, PaceError>
    where
        B: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        loop {
            let begun = Instant::now();
            let came = timeout(self.slowest.over.saturating_sub(self.waited), body.next()).await;
            self.waited += begun.elapsed();
            if let Ok(Some(Ok(frame))) = &came {
                self.bytes += frame.len() as u64;
            }
            match came {
                Ok(Some(Ok(_))) | Err(_) if self.waited >= self.slowest.over => self.check()?,
                _ => {}
            }
            match came {
                Ok(Some(Ok(frame))) => return Ok(Some(frame)),
                Ok(Some(Err(e))) => return Err(PaceError::Broken(e.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => {}
            }
        }
    }

    /// Takes the average, and begins the next one.
    fn check(&mut self) -> Result<(), PaceError> {
        let wanted = self.slowest.bytes_per_s.saturating_mul(self.slowest.over.as_secs()).max(1);
        if self.bytes < wanted {
            return Err(PaceError::TooSlow { bytes: self.bytes, over: self.slowest.over, wanted });
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// Reads a body of `parts` single bytes that come `every` so often, as if at least 10 bytes had to come in 100 ms.
    async fn read(parts: usize, every: Duration) -> Result<usize, PaceError> {
        let mut pace = Pace::new(Slowest { bytes_per_s: 0, over: Duration::from_millis(100) });
        let mut body = Box::pin(stream::iter(0..parts).then(|_| async move {
            tokio::time::sleep(every).await;
            Ok::<_, String>(Bytes::from_static(b"x"))
        }));
        let mut bytes = 0;
        while let Some(part) = pace.next(&mut body).await? {
            bytes += part.len();
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_body_that_brings_nothing_for_the_whole_time_is_ended() {
        assert_eq!(read(3, Duration::from_millis(1)).await.expect("read"), 3);
        let ended = read(3, Duration::from_secs(3600)).await.expect_err("ended");
        assert!(matches!(ended, PaceError::TooSlow { bytes: 0, wanted: 1, .. }), "{ended}");
    }

    #[tokio::test]
    async fn a_body_that_drips_is_ended_by_its_average() {
        let mut pace = Pace::new(Slowest { bytes_per_s: 10, over: Duration::from_secs(1) });
        let mut drip = Box::pin(stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, String>(Bytes::from_static(b"x"))
        }));
        let ended = loop {
            match pace.next(&mut drip).await {
                Ok(part) => assert_eq!(part, Some(Bytes::from_static(b"x"))),
                Err(ended) => break ended,
            }
        };
        assert!(matches!(ended, PaceError::TooSlow { bytes: 1..=9, wanted: 10, .. }), "{ended}");
    }
}
