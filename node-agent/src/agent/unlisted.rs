//! A node that the controller's database does not know: it joined after the copy that was restored. It goes on with what it was
//! told last and deletes nothing, says what to do about it, and joins again as the node that it is once it has a join token that
//! the controller takes. The token is read anew each time, so the file that it is in can be replaced while the agent runs.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use muster_api::{ErrorCode, node_protocol::Offer, token::JoinToken};
use storage_core::lock;
use tracing::{error, info, warn};

use crate::{config::Config, controller::ControllerError, identity::NodeIdentity};

/// Pause before the same token is tried again. Whoever shows bad tokens is made to wait by the controller.
const AGAIN: Duration = Duration::from_secs(60);

/// What is known of being unlisted, and of the tries to change that.
#[derive(Debug, Default)]
pub(super) struct Unlisted(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What the controller said; none while the node is listed.
    said: Option<String>,
    /// Why the last try failed.
    failed: Option<String>,
    /// The last token that was tried, and when.
    tried: Option<(Option<JoinToken>, Instant)>,
}

impl Unlisted {
    /// What to do about it, for people; none while the node is listed.
    pub(super) fn told(&self) -> Option<String> {
        let state = lock(&self.0);
        let said = state.said.as_ref()?;
        Some(match &state.failed {
            Some(failed) => format!("{said}. The last try failed: {failed}"),
            None => said.clone(),
        })
    }

    /// The controller answers this node as one that it knows.
    pub(super) fn listed(&self) {
        *lock(&self.0) = State::default();
    }

    /// Takes the refusal of a call, and joins again if there is a token that was not just tried. Returns whether the node is
    /// listed now. False as well for a refusal of another kind.
    pub(super) async fn heed(
        &self,
        refusal: &ControllerError,
        identity: &NodeIdentity,
        config: &Config,
        (advertise, offer): (&str, Offer),
    ) -> bool {
        let ControllerError::Refused(problem) = refusal else { return false };
        if problem.code != ErrorCode::Unlisted {
            return false;
        }
        let token = config.join_token().ok().flatten();
        {
            let mut state = lock(&self.0);
            if state.said.replace(problem.detail.clone()).is_none() {
                error!(node.id = %identity.joined.node, "{}", problem.detail);
            }
            let now = Instant::now();
            let is_new = state.tried.as_ref().is_none_or(|(tried, at)| *tried != token || now >= *at + AGAIN);
            if token.is_none() || !is_new {
                return false;
            }
            state.tried = Some((token, now));
        }
        match identity.rejoin(config, advertise, offer).await {
            Ok(()) => {
                info!(node.id = %identity.joined.node, "the node is listed again");
                self.listed();
                true
            }
            Err(error) => {
                warn!(%error, "the node is still unlisted");
                lock(&self.0).failed = Some(error.to_string());
                false
            }
        }
    }
}
