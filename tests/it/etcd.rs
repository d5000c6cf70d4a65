//! A database as its application sees it: through the credentials of a binding.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, TlsOptions};
use serde_json::Value;

use crate::broker::text;

/// Connects to the member behind `uri` (one of the `uri` fields) as the binding's user.
pub async fn connect_to(credentials: &Value, field: &str) -> Result<Client, etcd_client::Error> {
    connect_as(
        credentials,
        field,
        &user(credentials),
        &password(credentials),
    )
    .await
}

/// Connects as the binding's user.
pub async fn connect(credentials: &Value) -> Client {
    connect_to(credentials, "uri").await.expect("a connection")
}

/// Connects as any user.
pub async fn connect_as(
    credentials: &Value,
    field: &str,
    user: &str,
    password: &str,
) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new()
        .with_tls(tls(credentials))
        .with_user(user, password);
    Client::connect([endpoint(credentials, field)], Some(options)).await
}

/// Connects without saying who.
pub async fn connect_anonymously(credentials: &Value) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new().with_tls(tls(credentials));
    Client::connect([endpoint(credentials, "uri")], Some(options)).await
}

fn tls(credentials: &Value) -> TlsOptions {
    let pem = BASE64
        .decode(text(&credentials["ca_certificate_base64"]))
        .expect("base64");
    TlsOptions::new().ca_certificate(Certificate::from_pem(pem))
}

fn uri(credentials: &Value, field: &str) -> url::Url {
    text(&credentials[field]).parse().expect("a URI")
}

fn endpoint(credentials: &Value, field: &str) -> String {
    let uri = uri(credentials, field);
    format!(
        "https://{}:{}",
        uri.host_str().expect("a host"),
        uri.port().expect("a port")
    )
}

/// The binding's user.
pub fn user(credentials: &Value) -> String {
    uri(credentials, "uri").username().to_owned()
}

/// The binding's password.
pub fn password(credentials: &Value) -> String {
    uri(credentials, "uri")
        .password()
        .expect("a password")
        .to_owned()
}

/// Writes `count` keys `key-0000`, ... with values made of `value`.
pub async fn fill(client: &mut Client, count: usize, value: &str) {
    for i in 0..count {
        client
            .put(format!("key-{i:04}"), format!("{value}-{i}"), None)
            .await
            .expect("a put");
    }
}

/// All keys and values, by key.
pub async fn dump(client: &mut Client) -> Vec<(String, String)> {
    read(client).await.expect("a get")
}

/// All keys and values, by key, of a member that may not answer.
pub async fn read(client: &mut Client) -> Result<Vec<(String, String)>, etcd_client::Error> {
    let all = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = all.kvs().iter();
    Ok(pairs.map(|kv| (text(kv.key()), text(kv.value()))).collect())
}
