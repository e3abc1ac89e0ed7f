//! Who is asking, and what they may do: 401 without a good token or session, 404 for what is not theirs, 403 for what
//! they may see but not do. How a caller is recognised is in `authentication`.

use muster_api::{ErrorCode, Name, SessionId, Timestamp, TokenId, token::Role};

use super::AppError;
use crate::store::operations::Origin;

/// The project used where none is named.
pub const DEFAULT_PROJECT: &str = "default";

/// Whose things a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the project with this name.
    One(String),
    /// Those of all projects (operators, `?project=*`).
    All,
}

/// Who is asking, as their token or session says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token that the request was sent with, or that its session stands for.
    pub token: TokenId,
    /// The session whose cookie the request was sent with; `None` for a request with a token.
    pub session: Option<SessionId>,
    /// The token's name. Events and operations show it as the actor.
    pub name: String,
    /// What the token allows: operators have the role admin.
    pub role: Role,
    /// The project of a tenant; `None` for operators.
    pub bound_to: Option<String>,
    /// When the token or the session ends. Event streams that use it end soon after.
    pub expires_at: Timestamp,
    /// Whose things the request is about.
    pub scope: Scope,
    /// Id of the request, in the logs of every daemon.
    pub request_id: String,
}

impl Caller {
    /// Whether they are an operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.role == Role::Admin
    }

    /// Refuses everybody but operators with [`AppError::Forbidden`].
    pub fn require_operator(&self) -> Result<(), AppError> {
        if self.is_operator() {
            Ok(())
        } else {
            Err(AppError::Forbidden("this is for operators (role admin)".to_owned()))
        }
    }

    /// The one project in which things are made and names are looked up.
    pub fn one_project(&self) -> Result<&str, AppError> {
        match &self.scope {
            Scope::One(project) => Ok(project),
            Scope::All => Err(AppError::BadRequest("name one project here: ?project=* is for lists".to_owned())),
        }
    }

    /// For lists: the one project, or `None` for all of them.
    #[must_use]
    pub fn list_project(&self) -> Option<&str> {
        match &self.scope {
            Scope::One(project) => Some(project),
            Scope::All => None,
        }
    }

    /// Whether they may know of things of that project. A thing they may not know of is answered with 404.
    #[must_use]
    pub fn can_see(&self, project: &str) -> bool {
        self.is_operator() || self.bound_to.as_deref() == Some(project)
    }

    /// For `requested_by` of operations and the actor of events.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { actor: self.name.clone(), request_id: self.request_id.clone() }
    }

    /// The refusal of a call whose token or session has ended while it went on.
    pub(super) fn refused(&self) -> AppError {
        if self.session.is_some() { session_refused() } else { token_refused() }
    }
}

/// The refusal of a token that is not good, or not any more.
pub(crate) fn token_refused() -> AppError {
    AppError::Unauthenticated("the token is unknown, revoked or expired".to_owned())
}

/// The refusal of a session that is not good, or not any more.
pub(super) fn session_refused() -> AppError {
    AppError::Unauthenticated("the session has ended or is unknown: sign in again".to_owned())
}

/// Whose things a caller with this role and project asks about, if the request says `project`.
pub(super) fn scope_of(role: Role, bound_to: Option<&str>, project: Option<&str>) -> Result<Scope, AppError> {
    match (role, project) {
        (Role::Node, _) => Err(AppError::Forbidden("a node token can only join nodes".to_owned())),
        (Role::Admin, Some("*")) => Ok(Scope::All),
        (Role::Admin, None) => Ok(Scope::One(DEFAULT_PROJECT.to_owned())),
        (Role::Admin, Some(wanted)) => match wanted.parse::<Name>() {
            Ok(project) => Ok(Scope::One(project.to_string())),
            Err(e) => Err(AppError::BadRequest(format!("the query parameter 'project': {e}"))),
        },
        (Role::Tenant, wanted) => {
            let own = bound_to.expect("a CHECK of the table gives every tenant a project");
            if wanted.is_some_and(|wanted| wanted != own) {
                return Err(AppError::code(ErrorCode::NotFound, "there is no such project"));
            }
            Ok(Scope::One(own.to_owned()))
        }
    }
}
