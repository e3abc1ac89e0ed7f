//! `/v1/security-groups`

use axum::extract::State;
use muster_api::{
    Page, Ref, SecurityGroupId,
    security_group::{CreateSecurityGroup, PatchSecurityGroup, SecurityGroup},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, Removal, Shown,
    openapi::{ByLabel, ByState, Deleted, List},
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(security_group_list, security_group_create)).routes(routes!(
        security_group_show,
        security_group_patch,
        security_group_delete
    ))
}

/// Makes a security group.
#[utoipa::path(post, path = "/v1/security-groups", tag = "security-groups", request_body = CreateSecurityGroup,
    responses((status = 201, body = SecurityGroup)))]
async fn security_group_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateSecurityGroup>,
) -> Result<Answer, ApiError> {
    Ok(app.create_security_group(&caller, &change.once, &change.body).await?)
}

/// Security groups, oldest first.
#[utoipa::path(get, path = "/v1/security-groups", tag = "security-groups", params(List, ByState, ByLabel, Deleted),
    responses((status = 200, body = Page<SecurityGroup>)))]
async fn security_group_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<SecurityGroup>>, ApiError> {
    Ok(Json(app.security_groups(&caller, &list).await?))
}

/// One security group.
#[utoipa::path(get, path = "/v1/security-groups/{security_group}", tag = "security-groups",
    responses((status = 200, body = SecurityGroup)))]
async fn security_group_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<SecurityGroupId>>,
) -> Result<Json<SecurityGroup>, ApiError> {
    Ok(Json(app.security_group(&caller, &thing).await?))
}

/// Changes name, labels or rules (merge patch). Connections that are open stay so.
#[utoipa::path(patch, path = "/v1/security-groups/{security_group}", tag = "security-groups",
    request_body = PatchSecurityGroup, responses((status = 200, body = SecurityGroup)))]
async fn security_group_patch(
    State(app): State<App>,
    of: ChangeOf<SecurityGroupId, PatchSecurityGroup>,
) -> Result<Answer, ApiError> {
    Ok(app.patch_security_group(&of.asked, &of.body).await?)
}

/// Deletes a security group. It is refused with `in_use` while deployments or rules of other groups use it.
#[utoipa::path(delete, path = "/v1/security-groups/{security_group}", tag = "security-groups",
    responses((status = 204)))]
async fn security_group_delete(
    State(app): State<App>,
    Removal { asked, .. }: Removal<Ref<SecurityGroupId>>,
) -> Result<Answer, ApiError> {
    Ok(app.delete_security_group(&asked).await?)
}
