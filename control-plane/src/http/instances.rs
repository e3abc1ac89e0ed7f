//! `/v1/instances`

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::{AppendHeaders, IntoResponse, Response},
};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use muster_api::{
    InstanceId, Page, Ref,
    console::{ConsoleEvent, ConsoleTicket, OpenConsole},
    guest::{Exec, Executed},
    instance::{Instance, OnMany, PatchInstance, Recover, Stop},
    operation::Operation,
    version::Freed,
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, NoBody, Params, Path, Removal, Shown,
    extract::MaybeBody,
    openapi::{ByDeployment, ByLabel, ByNetwork, ByNode, ByState, Deleted, DryRun, List},
};
use crate::app::{Answer, App, AppError, Caller, instances::Verb};

/// How much console output is sent where the request does not say, bytes.
const TAIL_BYTES: u64 = 64 << 10;
/// Most console output in one answer, bytes.
const TAIL_BYTES_MAX: u64 = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(instance_list))
        .routes(routes!(instance_start_many))
        .routes(routes!(instance_stop_many))
        .routes(routes!(instance_reboot_many))
        .routes(routes!(instance_recover_many))
        .routes(routes!(instance_delete_many))
        .routes(routes!(instance_show, instance_patch, instance_delete))
        .routes(routes!(instance_start))
        .routes(routes!(instance_stop))
        .routes(routes!(instance_reboot))
        .routes(routes!(instance_recover))
        .routes(routes!(instance_exec))
        .routes(routes!(instance_log_read))
        .routes(routes!(instance_console_create))
        .routes(routes!(console_open))
}

/// Instances, oldest first.
#[utoipa::path(get, path = "/v1/instances", tag = "instances",
    params(List, ByState, ByLabel, ByDeployment, ByNode, ByNetwork, Deleted),
    responses((status = 200, body = Page<Instance>)))]
async fn instance_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Instance>>, ApiError> {
    Ok(Json(app.instances(&caller, &list).await?))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{instance}", tag = "instances",
    responses((status = 200, body = Instance)))]
async fn instance_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<InstanceId>>,
) -> Result<Json<Instance>, ApiError> {
    Ok(Json(app.instance(&caller, &thing).await?))
}

/// Changes the labels (merge patch).
#[utoipa::path(patch, path = "/v1/instances/{instance}", tag = "instances", request_body = PatchInstance,
    responses((status = 200, body = Instance)))]
async fn instance_patch(State(app): State<App>, of: ChangeOf<InstanceId, PatchInstance>) -> Result<Answer, ApiError> {
    Ok(app.patch_instance(&of.asked, &of.body).await?)
}

/// Deletes an instance and lowers the `count` of its deployment. `dry_run=true` only tells how many bytes it would
/// free. Refused with 409 while one of its disks is being detached.
#[utoipa::path(delete, path = "/v1/instances/{instance}", tag = "instances",
    params(DryRun), responses((status = 202, body = Operation), (status = 200, body = Freed)))]
async fn instance_delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<InstanceId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.instance_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_instance(&asked).await?)
}

/// Starts an instance, unless it runs.
#[utoipa::path(post, path = "/v1/instances/{instance}/start", tag = "instances",
    responses((status = 202, body = Operation), (status = 200, body = Instance)))]
async fn instance_start(State(app): State<App>, of: ChangeOf<InstanceId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.power_instance(&of.asked, Verb::Start).await?)
}

/// Stops an instance. Its disk is kept.
#[utoipa::path(post, path = "/v1/instances/{instance}/stop", tag = "instances", request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Instance)))]
async fn instance_stop(State(app): State<App>, of: ChangeOf<InstanceId, MaybeBody<Stop>>) -> Result<Answer, ApiError> {
    let verb = Verb::stop(&of.body.0, app.config.instances.stop_timeout)?;
    Ok(app.power_instance(&of.asked, verb).await?)
}

/// Stops an instance and starts it again.
#[utoipa::path(post, path = "/v1/instances/{instance}/reboot", tag = "instances", request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Instance)))]
async fn instance_reboot(
    State(app): State<App>,
    of: ChangeOf<InstanceId, MaybeBody<Stop>>,
) -> Result<Answer, ApiError> {
    let verb = Verb::reboot(&of.body.0, app.config.instances.stop_timeout)?;
    Ok(app.power_instance(&of.asked, verb).await?)
}

/// Begins an instance anew on another node, from the last saved version of its disk. Only for one that failed with
/// `node_lost`. What was written after that version is given up: without `accept_loss` the answer is 409 `data_loss`
/// whose `loss` lists it; the operation's `result.loss` lists it too.
#[utoipa::path(post, path = "/v1/instances/{instance}/recover", tag = "instances", request_body = Option<Recover>,
    responses((status = 202, body = Operation)))]
async fn instance_recover(
    State(app): State<App>,
    of: ChangeOf<InstanceId, MaybeBody<Recover>>,
) -> Result<Answer, ApiError> {
    Ok(app.recover_instance(&of.asked, of.body.0).await?)
}

/// Runs a command in the guest of an instance through its guest agent, and answers when it has ended. It needs
/// qemu-guest-agent in the guest, and one that allows it: else 409 `no_guest_agent` or `guest_refused`. A call that is repeated
/// with its `Idempotency-Key` runs nothing and is refused with 422 `key_reused`, because what was printed is not kept. The event
/// `instance.exec` names the program without its arguments.
#[utoipa::path(post, path = "/v1/instances/{instance}/exec", tag = "instances", request_body = Exec,
    responses((status = 200, body = Executed)))]
async fn instance_exec(State(app): State<App>, of: ChangeOf<InstanceId, Exec>) -> Result<Json<Executed>, ApiError> {
    Ok(Json(app.exec(&of.asked, &of.body).await?))
}

/// The handlers of a verb on many instances.
macro_rules! on_many {
    ($($(#[$doc:meta])* $name:ident = $path:literal, $verb:literal;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, tag = "instances", request_body = OnMany,
            responses((status = 202, body = Operation)))]
        async fn $name(State(app): State<App>, caller: Caller, change: Change<OnMany>) -> Result<Answer, ApiError> {
            Ok(app.on_many(&caller, &change.once, $verb, &change.body).await?)
        }
    )*};
}

on_many! {
    /// Starts the selected instances that do not run.
    instance_start_many = "/v1/instances/-/start", "start";
    /// Stops the selected instances. Their disks are kept.
    instance_stop_many = "/v1/instances/-/stop", "stop";
    /// Stops the selected instances and starts them again.
    instance_reboot_many = "/v1/instances/-/reboot", "reboot";
    /// Begins the selected instances of dead nodes anew on other nodes, from the last saved versions of their disks.
    instance_recover_many = "/v1/instances/-/recover", "recover";
    /// Deletes the selected instances and lowers the `count` of their deployments.
    instance_delete_many = "/v1/instances/-/delete", "delete";
}

/// The end of the console output of an instance, at most `tail` of it. One of runtime none has no console: 409. With
/// `follow=true` the answer does not end there: what is printed is sent as it comes, until the client leaves, its token or
/// session ends, the instance is gone, or an hour has passed.
#[utoipa::path(get, path = "/v1/instances/{instance}/log", tag = "instances",
    params(
        ("tail" = Option<String>, Query, description = "A size such as `4KiB`, at most 16MiB, with `follow` 1MiB. Default: 64KiB."),
        ("follow" = Option<bool>, Query, description = "Whether to go on with what is printed later. Default: false.")),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 409)))]
async fn instance_log_read(
    State(app): State<App>,
    caller: Caller,
    Path(instance): Path<Ref<InstanceId>>,
    params: Params,
) -> Result<Response, ApiError> {
    let tail = params.size("tail", TAIL_BYTES_MAX)?.unwrap_or(TAIL_BYTES);
    let text = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if !params.flag("follow")? {
        return Ok(([text], app.instance_log(&caller, &instance, tail).await?).into_response());
    }
    let output = app.follow_instance_log(caller, &instance, tail).await?;
    // A proxy that buffers would hold output back.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([text, unbuffered], Body::from_stream(output.map(Ok::<_, Infallible>))).into_response())
}

/// A ticket for the serial console of an instance, for its screen, or for one of its TCP ports. Its `url` is opened as a
/// WebSocket, once, within 60 seconds. The calls of a token and of its sessions share at most 64 streams and consoles. An
/// `Idempotency-Key` changes nothing here: a repeated call gives another ticket.
#[utoipa::path(post, path = "/v1/instances/{instance}/console", tag = "instances", request_body = OpenConsole,
    responses((status = 201, body = ConsoleTicket), (status = 409)))]
async fn instance_console_create(
    State(app): State<App>,
    of: ChangeOf<InstanceId, OpenConsole>,
) -> Result<(StatusCode, Json<ConsoleTicket>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.console_ticket(&of.asked, of.body).await?)))
}

/// Opens a console with a ticket, as a WebSocket. Binary messages carry the bytes of the serial console, of RFB (VNC) or of the
/// port, both ways. Text messages carry one `ConsoleEvent` from the node, or a `ConsoleOrder` from the client. The call needs no
/// `Authorization`. The console is closed with the token or session that asked for the ticket, with the guest, and when
/// nothing goes through it for 30 minutes (or what the controller was configured with).
#[utoipa::path(get, path = "/v1/consoles", tag = "instances", security(),
    params(("ticket" = String, Query, description = "The ticket. `url` of a `ConsoleTicket` has it.")),
    responses(
        (status = 101, body = ConsoleEvent, description = "The connection is a WebSocket now."),
        (status = 400), (status = 401), (status = 404), (status = 409), (status = 429), (status = 500), (status = 503)))]
async fn console_open(State(app): State<App>, params: Params, mut request: Request) -> Result<Response, ApiError> {
    let wanted = AppError::BadRequest("open this as a WebSocket (version 13): GET with Upgrade: websocket".to_owned());
    let Some(key) = websocket_key(request.headers()) else { return Err(wanted.into()) };
    let Some(client) = request.extensions_mut().remove::<OnUpgrade>() else { return Err(wanted.into()) };
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    let ticket = params.text("ticket")?.unwrap_or_default();
    let opened = match app.open_console(ticket, key.clone()).await {
        Ok(opened) => opened,
        // A script in a browser cannot read why a WebSocket is refused. So it is let in and told.
        Err(error)
            if request.headers().contains_key(header::ORIGIN) && !matches!(error, AppError::Unauthenticated(_)) =>
        {
            let accept = derive_accept_key(key.as_bytes());
            tokio::spawn(say_why(client, ApiError::from(error).detail().to_owned()));
            return Ok(switching(accept.parse().expect("base64 fits into a header")));
        }
        Err(error) => return Err(app.sign_in_failed(error, from).into()),
    };
    let accept = opened.accept().cloned();
    let accept = accept.ok_or_else(|| AppError::Unavailable("its node answered with no WebSocket".to_owned()))?;
    app.serve_console(opened, client);
    Ok(switching(accept))
}

/// The answer after which the connection is a WebSocket.
fn switching(accept: HeaderValue) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, AppendHeaders(headers)).into_response()
}

/// Tells a client why there is no console, and closes the connection.
async fn say_why(client: OnUpgrade, reason: String) {
    const WITHIN: Duration = Duration::from_secs(10);
    let said = async {
        let client = TokioIo::new(client.await.ok()?);
        let mut socket = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
        let event = serde_json::to_string(&ConsoleEvent::Ended { reason }).expect("an event is JSON");
        socket.send(Message::text(event)).await.ok()?;
        socket.close(None).await.ok()
    };
    // A client that is gone needs no answer.
    let _ = timeout(WITHIN, said).await;
}

/// The key of a request for a WebSocket, by RFC 6455; `None` if it is for none.
fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let wanted = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| wanted && key.len() == 24).cloned()
}
