//! What all operations of an API have in common, so that each says only what is its own: places in
//! its path, headers, refusals that any request may meet, and the body that errors have.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// A status and when it is answered with.
pub type Refusal = (&'static str, &'static str);

/// What an API's operations have in common.
pub struct Rules {
    /// Refusals of every request.
    pub always: &'static [Refusal],
    /// Refusals of requests with a body.
    pub of_bodies: &'static [Refusal],
    /// Headers of every request.
    pub request_headers: &'static [&'static str],
}

/// Refusals of requests with a body, in both APIs.
pub const OF_BODIES: &[Refusal] = &[
    (
        "400",
        "Something in the request is wrong; the text says what to do",
    ),
    ("408", "The body came too slowly"),
    ("413", "The body is too large"),
    ("415", "The body is compressed"),
];

/// What a 503 says of every operation.
pub const UNAVAILABLE: &str = "The store is too slow or out of reach, or another broker looks after the \
    instance; a change may have been accepted all the same: ask again";

/// A refusal that an operation without credentials does not have.
const UNAUTHORIZED: &str = "401";

/// The other one.
const FORBIDDEN: &str = "403";

/// What a 403 says of every operation.
pub const ONLY_READ: &str =
    "The credentials are those of operators who only read, and this is not for them";

const JSON: &str = "application/json";

/// A document, completed by the rules; `scheme` says how to show who one is.
pub fn document(declared: OpenApi, scheme: &Value, rules: &Rules) -> Value {
    // It is made of maps and texts alone, which become JSON always.
    let mut document = serde_json::to_value(declared).unwrap_or_default();
    complete(&mut document, rules);
    document["components"]["securitySchemes"]["credentials"] = scheme.clone();
    document
}

fn complete(document: &mut Value, rules: &Rules) {
    document["components"]["headers"] = headers();
    document["components"]["parameters"] = parameters();
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    for (path, methods) in paths {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(operation, path, rules);
            if method == "head" {
                be_without_bodies(operation);
            }
        }
    }
}

fn complete_operation(operation: &mut Value, path: &str, rules: &Rules) {
    let places = path.split(['{', '}']).skip(1).step_by(2);
    let named = places.chain(rules.request_headers.iter().copied());
    let mut parameters: Vec<Value> = named.map(|name| reference("parameters", name)).collect();
    if let Some(own) = operation["parameters"].as_array() {
        parameters.extend(own.iter().cloned());
    }
    operation["parameters"] = parameters.into();
    // Named after modules, they would tell nothing.
    operation
        .as_object_mut()
        .map(|operation| operation.remove("tags"));
    let is_open = operation["security"] == json!([{}]);
    let of_bodies = if operation.get("requestBody").is_some() {
        rules.of_bodies
    } else {
        &[]
    };
    let refusals = rules.always.iter().chain(of_bodies);
    let of_credentials = |status: &str| [UNAUTHORIZED, FORBIDDEN].contains(&status);
    for (status, when) in refusals.filter(|(status, _)| !(is_open && of_credentials(status))) {
        let response = &mut operation["responses"][*status];
        if response.is_null() {
            *response = json!({ "description": when });
        }
    }
    let responses = operation["responses"].as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        complete_response(status, response);
    }
}

/// The same as GET, but for the bodies.
fn be_without_bodies(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = json!(format!("{id}_head"));
    let responses = operation["responses"].as_object_mut();
    for response in responses.into_iter().flat_map(Map::values_mut) {
        response
            .as_object_mut()
            .map(|response| response.remove("content"));
    }
}

fn complete_response(status: &str, response: &mut Value) {
    const IDENTITY: &str = "X-Broker-API-Request-Identity";
    response["headers"][IDENTITY] = reference("headers", IDENTITY);
    match status {
        UNAUTHORIZED => {
            response["headers"]["WWW-Authenticate"] = reference("headers", "WWW-Authenticate")
        }
        "429" | "503" => response["headers"]["Retry-After"] = reference("headers", "Retry-After"),
        _ => {}
    }
    let is_error = status.starts_with(['4', '5']);
    if is_error && response.get("content").is_none() {
        response["content"][JSON]["schema"] = reference("schemas", "Error");
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn headers() -> Value {
    json!({
        "X-Broker-API-Request-Identity": {
            "description": "As the request had it",
            "schema": { "type": "string" },
        },
        "WWW-Authenticate": {
            "description": "How to show who one is",
            "required": true,
            "schema": { "type": "string" },
        },
        "Retry-After": {
            "description": "Seconds to wait before the next request",
            "schema": { "type": "integer", "minimum": 0 },
        },
    })
}

/// Places in paths, and headers of requests.
fn parameters() -> Value {
    let place = |name: &str, scalar: &str, what: &str| {
        let place = json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": what,
            "schema": reference("schemas", scalar),
        });
        (name.to_owned(), place)
    };
    let header = |name: &str, what: &str, pattern: Option<&str>| {
        let mut header = json!({
            "name": name,
            "in": "header",
            "required": pattern.is_some(),
            "description": what,
            "schema": { "type": "string" },
        });
        if let Some(pattern) = pattern {
            header["schema"]["pattern"] = json!(pattern);
            header["example"] = json!("2.17");
        }
        (name.to_owned(), header)
    };
    let all = [
        place("instance", "PlatformId", "The service instance"),
        place("binding", "PlatformId", "The service binding"),
        place("deployment", "OwnId", "The deployment behind the instance"),
        place("backup", "OwnId", "The backup"),
        place("cluster", "PlatformId", "The cluster"),
        place("logfile", "OwnId", "The logfile"),
        place("recipe", "OwnId", "The recipe"),
        place("operation", "OwnId", "The operation"),
        header(
            "X-Broker-API-Version",
            "The version of OSB that is spoken: 2.x",
            Some(r"^2\.[0-9]{1,9}$"),
        ),
        header(
            "X-Broker-API-Request-Identity",
            "A name for the request, which comes back",
            None,
        ),
        header(
            "X-Broker-API-Originating-Identity",
            "Who is behind the request: the platform's name, a space, and JSON in base64. For the audit; what cannot be read is taken for absent",
            None,
        ),
    ];
    Value::Object(all.into_iter().collect())
}
