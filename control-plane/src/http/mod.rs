//! The doors: the whole URL space on one screen. Handlers extract, call one `App` method, format.

pub mod auth;
pub mod error;
pub mod extract;

use axum::Router;

pub use self::{
    auth::CallId,
    error::ApiError,
    extract::{Change, IfMatch, Json, JsonBody, ListQuery, NoBody, Params, Path, parse_position, position_text},
};
use crate::app::App;

/// The people's door.
pub fn routes(app: App) -> Router {
    Router::new()
        // images: .merge(images::routes()).merge(versions::routes())
        // fleet: .merge(deployments::routes()).merge(instances::routes()).merge(snapshots::routes())
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{extract::State, routing::post};

    /// Proof that an async closure given to `run_tx`, also nested through `App::once` and borrowing from the handler,
    /// makes a handler's future that may move between threads.
    async fn example(
        State(app): State<App>,
        caller: crate::app::Caller,
        change: Change<muster_api::token::CreateToken>,
    ) -> Result<crate::app::Answer, ApiError> {
        let name = change.body.name.as_ref().map(ToString::to_string);
        let answer = app
            .once(&change.once, "example", async |tx| {
                let found = crate::store::tokens::by_name(tx, name.as_deref().unwrap_or("x")).await?;
                if let Some(found) = found {
                    return Err(crate::app::AppError::NameTaken {
                        kind: "token",
                        name: found.name,
                        existing: caller.name.clone(),
                    });
                }
                crate::app::Answer::ok(&caller.name)
            })
            .await?;
        Ok(answer)
    }

    #[test]
    fn async_closures_serve_handlers() {
        let _: Router<App> = Router::new().route("/", post(example));
    }
}
