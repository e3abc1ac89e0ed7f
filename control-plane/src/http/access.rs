//! `/v1/tokens`

use axum::extract::State;
use muster_api::{
    Page,
    token::{CreateToken, Token},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiError, Change, Json, ListQuery, NoBody, Path, Shown, openapi::List};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(token_list, token_create)).routes(routes!(token_show, token_delete))
}

/// Makes a token; its text is shown in this answer and nowhere else (operators).
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = CreateToken,
    responses((status = 201, body = Token)))]
async fn token_create(State(app): State<App>, caller: Caller, change: Change<CreateToken>) -> Result<Answer, ApiError> {
    Ok(app.create_token(&caller, &change.once, &change.body).await?)
}

/// Tokens without their secrets: all for operators, the project's for its tenants.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(List),
    responses((status = 200, body = Page<Token>)))]
async fn token_list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Token>>, ApiError> {
    Ok(Json(app.tokens(&caller, &list).await?))
}

/// One token without its secret, by id or name.
#[utoipa::path(get, path = "/v1/tokens/{token}", tag = "tokens", responses((status = 200, body = Token)))]
async fn token_show(State(app): State<App>, Shown { caller, thing }: Shown<String>) -> Result<Json<Token>, ApiError> {
    Ok(Json(app.token(&caller, &thing).await?))
}

/// Revokes a token at once. A repeated call gets the same answer (operators).
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", responses((status = 204)))]
async fn token_delete(
    State(app): State<App>,
    caller: Caller,
    Path(token): Path<String>,
    change: Change<NoBody>,
) -> Result<Answer, ApiError> {
    Ok(app.delete_token(&caller, &change.once, &token).await?)
}
