//! `/healthz` and `/readyz`, open to everybody, and `/metrics`, for operators or at a door of its own.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::ApiError;
use crate::{
    app::{App, AppError, Caller},
    telemetry,
    wake::Loop,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health_show)).routes(routes!(readiness_show)).routes(routes!(metrics_show))
}

/// The door of `--metrics-listen`: `/metrics` without a token, and `/healthz`.
pub fn metrics_door(app: App) -> Router {
    Router::new().route("/metrics", get(open_metrics)).route("/healthz", get(health_show)).with_state(app)
}

/// Answers as long as the process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn health_show() -> &'static str {
    "ok\n"
}

/// Answers 200 when the controller can serve: the database answers and the doors are not closing.
#[utoipa::path(get, path = "/readyz", tag = "health", security(),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503)))]
async fn readiness_show(State(app): State<App>) -> Result<&'static str, ApiError> {
    if app.closing.is_cancelled() {
        return Err(AppError::Unavailable("the controller is stopping".to_owned()).into());
    }
    app.store.ping().await.map_err(|_| AppError::Unavailable("the database does not answer".to_owned()))?;
    Ok("ok\n")
}

/// What the controller counts and measures, for Prometheus (operators).
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics_show(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    caller.require_operator()?;
    Ok(text(&app).await?)
}

async fn open_metrics(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(text(&app).await?)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
async fn text(app: &App) -> Result<Response, AppError> {
    let handle = telemetry::metrics();
    for which in Loop::ALL {
        let (status, name) = (app.loops.get(which), which.name());
        metrics::gauge!("muster_reconcile_passes", "loop" => name).set(status.passes as f64);
        metrics::gauge!("muster_reconcile_failures", "loop" => name).set(status.failures as f64);
        metrics::gauge!("muster_reconcile_failing", "loop" => name)
            .set(f64::from(u8::from(status.last_error.is_some())));
        metrics::gauge!("muster_reconcile_took_seconds", "loop" => name).set(status.took.as_secs_f64());
        metrics::gauge!("muster_reconcile_seen", "loop" => name).set(status.did.seen as f64);
        metrics::gauge!("muster_reconcile_acted", "loop" => name).set(status.did.acted as f64);
        let last = status.last_run.map_or(0.0, |at| at.micros() as f64 / 1e6);
        metrics::gauge!("muster_reconcile_last_run_seconds", "loop" => name).set(last);
    }
    let gauges = app.gauges().await?;
    for state in ["joining", "ready", "silent", "fenced", "leaving"] {
        metrics::gauge!("muster_nodes", "state" => state).set(gauges.nodes.get(state).copied().unwrap_or(0) as f64);
    }
    metrics::gauge!("muster_found_instances").set(gauges.found_instances as f64);
    metrics::gauge!("muster_sessions").set(gauges.sessions as f64);
    metrics::gauge!("muster_disks_detached").set(gauges.disks.0 as f64);
    metrics::gauge!("muster_disks_detaching").set(gauges.disks.1 as f64);
    metrics::gauge!("muster_networks").set(gauges.networks as f64);
    metrics::gauge!("muster_nics").set(gauges.nics as f64);
    metrics::gauge!("muster_published_ports").set(gauges.published_ports.0 as f64);
    metrics::gauge!("muster_published_ports_limit").set(gauges.published_ports.1 as f64);
    metrics::gauge!("muster_operations_overdue").set(gauges.operations_overdue as f64);
    metrics::gauge!("muster_protected_deployments").set(gauges.protections.deployments as f64);
    metrics::gauge!("muster_protected_deployments_troubled").set(gauges.protections.troubled as f64);
    metrics::gauge!("muster_protection_oldest_seconds").set(gauges.unsaved_seconds);
    metrics::gauge!("muster_membership_epoch").set(app.pool.membership().epoch as f64);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response())
}
