//! What all calls have in common is written here once and put into each of them: names, the project, headers, errors.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use utoipa::openapi::{
    Content, Header, HeaderBuilder, OpenApi, Ref, RefOr, Required, Schema, Type,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{ArrayItems, ObjectBuilder, SchemaType},
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    calls::{RESERVED, calls_mut, tag},
    errors, examples, schemas,
};

/// Statuses that every call with a token may answer.
const OF_ALL: [u16; 7] = [400, 401, 403, 404, 429, 500, 503];
/// Further statuses of every call that has a body, or may have one. Those without an error code of their own do not occur.
const OF_BODIES: [u16; 5] = [408, 409, 413, 415, 422];

/// Adds to the document what all calls have in common.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    schemas::tidy(&mut document);
    let (with_etag, states) = (schemas::with_etag(&document), schemas::states(&document));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in calls_mut(item) {
            let call = Call::of(&method, path, operation, &with_etag);
            describe(operation);
            parameters(operation, path, &call);
            filter_by_state(operation, &states);
            body(operation, &method);
            responses(operation, &call);
        }
    }
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let cookie = "The cookie that `POST /v1/session` sets, for pages of the controller itself. Its name ends with the id of \
        the cluster; with TLS it begins with `__Host-`.";
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description("muster-CLUSTER", cookie));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    components.parameters = shared_parameters();
    components.headers = shared_headers();
    components.responses = errors::responses();
    drop_unused(&mut document);
    document
}

/// What kind of call it is. Everything below follows from that.
struct Call {
    /// It needs no token.
    open: bool,
    /// It is built.
    built: bool,
    /// It may have a body.
    has_body: bool,
    /// It takes an `Idempotency-Key`.
    once: bool,
    /// It takes an `If-Match`: it changes one thing, and that kind of thing has an etag.
    if_match: bool,
}

impl Call {
    fn of(method: &Method, path: &str, operation: &Operation, with_etag: &BTreeSet<String>) -> Self {
        let open = operation.security.as_ref().is_some_and(Vec::is_empty);
        let built = tag(operation) != RESERVED;
        let has_body = !open && built && *method != Method::GET;
        let on_one_thing = path.contains('{');
        Self {
            open,
            built,
            has_body,
            once: has_body && *method != Method::PUT,
            if_match: has_body && on_one_thing && with_etag.contains(tag(operation)),
        }
    }
}

/// The summary becomes the first sentence of what is said about the call, and the description all of it.
fn describe(operation: &mut Operation) {
    let said = [operation.summary.take(), operation.description.take()];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join("\n\n");
    let first = said.split_once(". ").or(said.split_once(".\n")).map_or(said.as_str(), |(first, _)| first);
    operation.summary = Some(first.trim_end_matches('.').replace('\n', " "));
    operation.description = Some(said);
}

fn parameters(operation: &mut Operation, path: &str, call: &Call) {
    let own = operation.parameters.take().unwrap_or_default();
    let own_in_path: Vec<&str> = own.iter().filter_map(in_path).collect();
    let named = path.split(['{', '}']).skip(1).step_by(2).filter(|name| !own_in_path.contains(name));
    let mut all: Vec<RefOr<Parameter>> = named.map(thing).collect();
    all.extend(own.into_iter().map(never_null));
    let shared = [
        ("Project", !call.open && call.built),
        ("IdempotencyKey", call.once),
        ("IfMatch", call.if_match),
        ("RequestId", true),
    ];
    let shared = shared.into_iter().filter(|(_, has)| *has);
    let shared = shared.map(|(name, _)| RefOr::Ref(Ref::new(format!("#/components/parameters/{name}"))));
    all.extend(shared);
    operation.parameters = Some(all);
}

/// The filter `state` of a list takes the states of the things that it lists.
fn filter_by_state(operation: &mut Operation, states: &BTreeMap<String, Ref>) {
    let Some(RefOr::T(page)) = operation.responses.responses.get("200") else { return };
    let Some(RefOr::T(Content { schema: Some(RefOr::Ref(page)), .. })) = page.content.get("application/json") else {
        return;
    };
    let Some((_, thing)) = page.ref_location.split_once("/Page_") else { return };
    let Some(state) = states.get(thing) else { return };
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { name, schema: Some(RefOr::T(Schema::Array(values))), .. }) = parameter
            && name == "state"
        {
            values.items = ArrayItems::RefOrSchema(Box::new(RefOr::Ref(state.clone())));
        }
    }
}

/// The name of a parameter in the path.
fn in_path(parameter: &RefOr<Parameter>) -> Option<&str> {
    match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Path => Some(&parameter.name),
        _ => None,
    }
}

/// A header is there or not. Only the types of Rust say that it may be null.
fn never_null(mut parameter: RefOr<Parameter>) -> RefOr<Parameter> {
    if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(schema))), .. }) = &mut parameter
        && let SchemaType::Array(types) = &schema.schema_type
        && let Some(only) = types.iter().find(|only| **only != Type::Null)
    {
        schema.schema_type = SchemaType::Type(only.clone());
    }
    parameter
}

/// The part of a path that names a thing.
fn thing(name: &str) -> RefOr<Parameter> {
    let built = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    RefOr::T(built.description(Some("Id or name.")).schema(Some(text())).build())
}

/// A merge patch has a media type of its own, which is taken beside `application/json`. A body that may be left out may
/// not be `null`.
fn body(operation: &mut Operation, method: &Method) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        if let RefOr::T(Content { schema: Some(schema), .. }) = content
            && let RefOr::T(Schema::OneOf(optional)) = schema
            && let Some(needed) = optional.items.iter().find(|item| !schemas::can_be_null(item)).cloned()
        {
            *schema = needed;
        }
        examples::add(content);
    }
    if *method == Method::PATCH
        && let Some(content) = body.content.get("application/json").cloned()
    {
        body.content.insert("application/merge-patch+json".to_owned(), content);
    }
}

fn responses(operation: &mut Operation, call: &Call) {
    let common: Vec<u16> = match call {
        Call { open: true, .. } => Vec::new(),
        Call { built: false, .. } => vec![401, 501],
        Call { has_body, if_match, .. } => {
            let of_bodies = OF_BODIES.into_iter().filter(|_| *has_body);
            OF_ALL.into_iter().chain(of_bodies).chain(if_match.then_some(412)).collect()
        }
    };
    let all = &mut operation.responses.responses;
    for status in common.into_iter().filter(|status| errors::has(*status)) {
        all.entry(status.to_string()).or_insert_with(|| RefOr::Ref(errors::reference(status)));
    }
    let has_ranges = all.contains_key("206");
    for (status, response) in all {
        let status: u16 = status.parse().expect("every response names its status");
        let RefOr::T(said) = response else { continue };
        if status < 400 {
            said.content.values_mut().for_each(examples::add);
            if said.description.is_empty() {
                said.description = of_success(status).to_owned();
            }
        } else if said.description.is_empty() {
            *response = RefOr::Ref(errors::reference(status));
            continue;
        } else {
            said.content.insert(errors::PROBLEM_JSON.to_owned(), RefOr::T(errors::content(status)));
        }
        let headers = [
            ("X-Request-Id", true),
            ("Location", matches!(status, 201 | 202)),
            ("Idempotent-Replay", call.once && status < 300),
            ("ETag", has_ranges && status < 400),
            ("Accept-Ranges", has_ranges && status < 300),
            ("Content-Range", matches!(status, 206 | 416)),
        ];
        for (name, _) in headers.into_iter().filter(|(_, has)| *has) {
            let reference = Ref::new(format!("#/components/headers/{name}"));
            said.headers.insert(name.to_owned(), RefOr::Ref(reference));
        }
    }
}

/// What a success means, where a call says nothing of its own about it.
fn of_success(status: u16) -> &'static str {
    match status {
        201 => "It is made.",
        202 => "The work has begun. `Location` is the path of its operation.",
        204 => "It is done.",
        _ => "What was asked for.",
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn shared_parameters() -> BTreeMap<String, RefOr<Parameter>> {
    let parameter = |name: &str, place, said: &str, schema: ObjectBuilder| {
        let built = ParameterBuilder::new().name(name).parameter_in(place).required(Required::False);
        RefOr::T(built.description(Some(said)).schema(Some(schema)).build())
    };
    let header = |name, said, schema| parameter(name, ParameterIn::Header, said, schema);
    let project = "The project of the things that the call names, makes or lists. Default: the project of the token, else \
        `default`. Lists of operators also take `*`, for all projects.";
    let key = "A text of the client's choice for this one change. A call that is repeated with it within 24 h has no second \
        effect and gets the first answer.";
    let etag = "The `etag` of the thing, as the client knows it. If the thing was changed since, the answer is 412.";
    let request = "Id of the request for the logs of all daemons it reaches: letters, digits, `-`, `_` and `.`. One is made \
        up if it is left out or unusable.";
    BTreeMap::from([
        ("Project".to_owned(), parameter("project", ParameterIn::Query, project, text())),
        (
            "IdempotencyKey".to_owned(),
            header("Idempotency-Key", key, text().min_length(Some(1)).max_length(Some(64)).pattern(Some("^[!-~]+$"))),
        ),
        ("IfMatch".to_owned(), header("If-Match", etag, text())),
        ("RequestId".to_owned(), header("X-Request-Id", request, text())),
    ])
}

fn shared_headers() -> BTreeMap<String, RefOr<Header>> {
    let header = |name: &str, said: &str, schema: ObjectBuilder| {
        (name.to_owned(), RefOr::T(HeaderBuilder::new().description(Some(said)).schema(Some(schema)).build()))
    };
    BTreeMap::from([
        header("Accept-Ranges", "`bytes`: parts of the content can be asked for.", text()),
        header("Content-Range", "Which bytes these are, and how many there are.", text()),
        header("ETag", "Names the content. Equal tags have equal bytes.", text()),
        header("Idempotent-Replay", "`true`: an earlier call with the same key had the effect.", text()),
        header("Location", "Path of what was made, or of the operation that works on it.", text()),
        header("Retry-After", "Seconds after which to try again.", ObjectBuilder::new().schema_type(Type::Integer)),
        header("WWW-Authenticate", "`Bearer`: send a token.", text()),
        header("X-Request-Id", "Id of the request, which is in the logs of all daemons it reached.", text()),
    ])
}

/// Leaves out the shared errors that no call refers to.
fn drop_unused(document: &mut OpenApi) {
    let text = document.to_json().expect("the document is JSON");
    let components = document.components.get_or_insert_default();
    components.responses.retain(|name, _| text.contains(&format!("\"#/components/responses/{name}\"")));
}
