//! `/v1/events`: server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use muster_api::Page;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Json, Params,
    extract::{filter_of, limit_of},
    openapi::{ByDeployment, ByLabel, ByNode, ByState, ByTarget, List},
};
use crate::app::{
    App, AppError, Caller,
    events::Sent,
    list::{Filter, Position},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(event_list))
}

/// Everything that happens after a position, at least once, in order per thing. `data:` is one event; an event named
/// `reset` says that some are no longer kept: list again, then go on from its id. A comment comes at once, and one every
/// 15 s.
/// With `Accept: application/json` instead a page of the events that are kept, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(
        ("after" = Option<String>, Query,
            description = "`as_of` of a list, or `id` of an event. From now on if left out; a page begins with the oldest."),
        ("Last-Event-ID" = Option<String>, Header,
            description = "`id` of the last event that was seen. It goes before `after`."),
        List, ByState, ByLabel, ByDeployment, ByNode, ByTarget),
    responses((status = 200, content((Page<muster_api::event::Event> = "application/json"), (String = "text/event-stream"))))
)]
async fn event_list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if wants_page(&headers) {
        let from = params.text("page_token")?.or(params.text("after")?);
        let limit = limit_of(&params)?;
        let page = app.events_page(&caller, from, limit, filter_of(&params)?).await?;
        return Ok(Json(page).into_response());
    }
    let mut known = vec!["after"];
    known.extend(Filter::NAMES);
    params.only(&known)?;
    let last = headers.get("last-event-id").map(|v| v.to_str().unwrap_or("?")).filter(|text| !text.is_empty());
    let after = match last {
        Some(text) => Some(read_followed(&app, text)?),
        None => params.text("after")?.map(|text| read_followed(&app, text)).transpose()?,
    };
    let events = app.subscribe(caller, after, filter_of(&params)?).await?;
    let frames = events.map(|sent| Ok::<_, Infallible>(frame(sent).unwrap_or_else(|_| Event::default().comment("?"))));
    // Something is sent at once, so that also behind a proxy a client sees that the stream is open.
    let open = futures::stream::iter([Ok(Event::default().comment("open"))]);
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15)).text("");
    let mut response = Sse::new(open.chain(frames)).keep_alive(keep_alive).into_response();
    // A proxy that buffers would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The place from which a client follows the stream. An id of an earlier release, with hexadecimal numbers, is taken as a
/// place that is lost, because an error would make browsers give up for good.
fn read_followed(app: &App, text: &str) -> Result<Position, AppError> {
    let is_older = (12..=25).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_older { Ok(Position::LOST) } else { app.position(text) }
}

/// Whether the client asks for JSON and not for a stream. Otherwise it gets a stream.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

fn frame(sent: Sent) -> Result<Event, AppError> {
    let unfit = |e: axum::Error| AppError::Internal(e.into());
    match sent {
        Sent::Event(event) => Event::default().id(event.id.clone()).json_data(&event).map_err(unfit),
        Sent::Reset(id) => {
            let data = serde_json::json!({ "kind": "reset", "as_of": id });
            Event::default().id(id).event("reset").json_data(data).map_err(unfit)
        }
    }
}
