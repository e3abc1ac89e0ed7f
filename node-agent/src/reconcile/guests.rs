//! What guest agents tell about their guests. They are asked beside all steps, seldom, and a few at a time: a guest agent
//! that hangs delays nothing but the next question to it (I11).

use std::{sync::Arc, time::Duration};

use muster_api::{guest::Guest, node_protocol::Assignment};
use tokio::time::Instant;

use super::{
    Inner,
    plan::{DomainSeen, Phase, Seen},
};
use crate::hypervisor::{DomainState, guest_agent};

/// Guest agents that are asked at a time. Each takes a call to the hypervisor for as long as it does not answer.
pub(super) const AT_A_TIME: usize = 8;
/// Time until a guest agent that answered is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// First and longest time until one that did not answer is asked again.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// After so many questions without an answer it counts as one that does not answer any more.
const SILENT_AFTER: u32 = 2;

/// What the guest agent of one start told, and when it is asked next.
#[derive(Default)]
pub(super) struct Told {
    /// `None` until it has answered once.
    pub(super) guest: Option<Guest>,
    next_at: Option<Instant>,
    failures: u32,
    asking: bool,
}

impl Told {
    /// It is asked at the next pass: it has just answered something else.
    pub(super) fn hurry(&mut self) {
        self.next_at = None;
    }

    fn is_due(&self) -> bool {
        !self.asking && self.next_at.is_none_or(|at| at <= Instant::now())
    }

    /// Takes an answer, or that there was none. True if it is news.
    fn take(&mut self, answer: Option<Guest>) -> bool {
        self.asking = false;
        let next = match answer {
            Some(guest) => {
                self.failures = 0;
                (Some(guest), ASK_AGAIN)
            }
            None => {
                self.failures = self.failures.saturating_add(1);
                let wait = RETRY_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(8)).min(RETRY_MOST);
                let answers = self.failures < SILENT_AFTER;
                let guest = self.guest.clone();
                (guest.map(|guest| Guest { answers: guest.answers && answers, ..guest }), wait)
            }
        };
        self.next_at = Some(Instant::now() + next.1);
        let is_news = self.guest != next.0;
        self.guest = next.0;
        is_news
    }
}

impl Inner {
    /// Asks the guest agent of an instance, if its guest runs and it is time, in a task of its own.
    pub(super) fn ask_guest(self: &Arc<Self>, assignment: &Assignment, seen: &Seen) {
        let Some(hypervisor) = self.parts.hypervisor.clone() else { return };
        let instance = assignment.instance;
        let runs = matches!(&seen.domain, DomainSeen::Present(domain)
            if domain.state == DomainState::Running && domain.boot == assignment.boot && domain.run == self.parts.run);
        let Some(life) = seen.life.as_ref().filter(|life| runs && matches!(life.phase, Phase::Started { .. })) else {
            return;
        };
        if !self.slot(instance, |slot| slot.guest.is_due()) {
            return;
        }
        let Ok(permit) = self.questions.clone().try_acquire_owned() else { return };
        let before = self.slot(instance, |slot| {
            slot.guest.asking = true;
            slot.guest.guest.clone().unwrap_or_default()
        });
        let (boot, inner) = (life.boot, self.clone());
        tokio::spawn(async move {
            let answer = guest_agent::facts(&*hypervisor, instance, before).await;
            drop(permit);
            if let Err(error) = &answer {
                tracing::debug!(instance.id = %instance, %error, "no facts about a guest");
            }
            let is_news = inner.slot(instance, |slot| {
                // Another start has begun since, and knows nothing of this one.
                let is_same = slot.life.as_ref().is_some_and(|life| life.boot == boot);
                is_same && slot.guest.take(answer.ok())
            });
            if is_news {
                inner.bump();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_answer_is_no_news_and_two_are() {
        let mut told = Told::default();
        assert!(!told.take(None), "nothing was known before");
        let guest = Guest { answers: true, host_name: Some("web-0".to_owned()), ..Guest::default() };
        assert!(told.take(Some(guest.clone())));
        assert!(!told.take(Some(guest.clone())), "the same again");
        assert!(!told.take(None));
        assert!(told.take(None));
        assert_eq!(told.guest, Some(Guest { answers: false, ..guest }));
        assert!(!told.is_due());
        told.hurry();
        assert!(told.is_due());
    }
}
