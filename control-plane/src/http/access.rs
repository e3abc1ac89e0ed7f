//! `/v1/tokens`

use axum::{Router, extract::State, routing::get};
use muster_api::{
    Page, Problem,
    token::{CreateToken, Token},
};

use super::{ApiError, Change, Json, ListQuery, NoBody, Params, Path, Shown};
use crate::app::{Answer, App, Caller};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(create, list, show, delete))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/tokens", get(list).post(create)).route("/v1/tokens/{token}", get(show).delete(delete))
}

/// Makes a token; its text is shown in this answer and nowhere else (operators).
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = CreateToken,
    responses((status = 201, body = Token), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    params: Params,
    change: Change<CreateToken>,
) -> Result<Answer, ApiError> {
    params.only(&[])?;
    Ok(app.create_token(&caller, &change.once, &change.body).await?)
}

/// Tokens without their secrets: all for operators, the project's for its tenants.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(super::openapi::List),
    responses((status = 200, body = Page<Token>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Token>>, ApiError> {
    Ok(Json(app.tokens(&caller, &list).await?))
}

/// One token without its secret, by id or name.
#[utoipa::path(get, path = "/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)),
    responses((status = 200, body = Token), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Shown { caller, thing }: Shown<String>) -> Result<Json<Token>, ApiError> {
    Ok(Json(app.token(&caller, &thing).await?))
}

/// Revokes a token at once. A repeated call gets the same answer (operators).
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(token): Path<String>,
    params: Params,
    change: Change<NoBody>,
) -> Result<Answer, ApiError> {
    params.only(&[])?;
    Ok(app.delete_token(&caller, &change.once, &token).await?)
}
