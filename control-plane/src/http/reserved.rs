//! Calls whose shape is fixed and that are not built yet. They answer 501, so that nobody takes them for a typing error.
//! The document has them, so that nobody builds something else there.

use axum::{extract::MatchedPath, routing::on};
use http::Method;
use utoipa::openapi::{HttpMethod, Paths, path::OperationBuilder};
use utoipa_axum::{PathItemExt as _, router::OpenApiRouter};

use super::{ApiError, openapi};
use crate::app::{App, AppError, Caller};

/// Method, path, id and meaning of each call.
const CALLS: [(HttpMethod, &str, &str, &str); 23] = {
    use HttpMethod::{Delete, Get, Head, Patch, Post};
    [
        (Post, "/v1/images/{image}/uploads", "upload_create", "Begins an upload that can be resumed."),
        (Head, "/v1/uploads/{upload}", "upload_show", "Tells how far an upload is, as `Upload-Offset`."),
        (Patch, "/v1/uploads/{upload}", "upload_append", "Takes the next bytes of an upload, at `Upload-Offset`."),
        (Delete, "/v1/uploads/{upload}", "upload_delete", "Gives an upload up."),
        (Post, "/v1/uploads/{upload}/finish", "upload_finish", "Makes a version of what was uploaded."),
        (
            Post,
            "/v1/deployments/{deployment}/shelve",
            "deployment_shelve",
            "Stops all members, takes a snapshot of them and frees their nodes.",
        ),
        (
            Post,
            "/v1/deployments/{deployment}/unshelve",
            "deployment_unshelve",
            "Starts the members of a shelved deployment.",
        ),
        (Post, "/v1/instances/{instance}/migrate", "instance_migrate", "Moves an instance to another node."),
        (Get, "/v1/projects", "project_list", "The projects."),
        (Post, "/v1/projects", "project_create", "Makes a project."),
        (Get, "/v1/projects/{project}", "project_show", "One project."),
        (Patch, "/v1/projects/{project}", "project_patch", "Changes a project (merge patch)."),
        (Delete, "/v1/projects/{project}", "project_delete", "Deletes a project that has nothing."),
        (Get, "/v1/quotas", "quota_list", "The limits of the projects."),
        (Get, "/v1/quotas/{quota}", "quota_show", "The limits of one project."),
        (Patch, "/v1/quotas/{quota}", "quota_patch", "Changes limits (merge patch)."),
        (Get, "/v1/audit", "audit_list", "Who did what, refusals too."),
        (Get, "/v1/instance-types", "instance_type_list", "The named sizes of instances."),
        (Post, "/v1/instance-types", "instance_type_create", "Makes a named size of instances."),
        (Get, "/v1/instance-types/{type}", "instance_type_show", "One named size of instances."),
        (Delete, "/v1/instance-types/{type}", "instance_type_delete", "Deletes a named size of instances."),
        (Get, "/v1/keys", "key_list", "The EC2 keys."),
        (Post, "/v1/keys", "key_create", "Makes an EC2 key, which is shown once."),
    ]
};

pub(super) fn routes() -> OpenApiRouter<App> {
    CALLS.into_iter().fold(OpenApiRouter::new(), |router, (method, path, id, meaning)| {
        let operation = OperationBuilder::new().tag(openapi::RESERVED).operation_id(Some(id)).summary(Some(meaning));
        let call = on(method.to_method_filter(), not_built_yet);
        let mut paths = Paths::new();
        paths.add_path_operation(path, vec![method], operation);
        router.routes((Vec::new(), paths, call))
    })
}

async fn not_built_yet(_: Caller, path: MatchedPath, method: Method) -> ApiError {
    AppError::NotBuiltYet(format!("{method} {}", path.as_str())).into()
}
