//! Log records: one line each, as text or as JSON. Whatever a client sends becomes no line and no
//! field of its own.

use std::io::Write as _;

use log::kv::{Key, Value, VisitSource};
use serde_json::{Map, json};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Says what is wrong with a filter: the logger itself would pass over it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    for directive in filter.split('/').next().unwrap_or_default().split(',') {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (target.trim(), level.trim()),
            None => ("", directive.trim()),
        };
        let known = level.parse::<log::LevelFilter>().is_ok();
        let is_target = target.is_empty() && level.contains("::");
        if !known && !level.is_empty() && !is_target {
            return Err(format!(
                "{directive:?} is not a level, nor a target and a level"
            ));
        }
    }
    Ok(())
}

/// Starts logging to standard error. `filter` is in `env_logger`'s language, for example
/// `info,compose_broker=debug`.
pub fn start(filter: &str, format: LogFormat) {
    let mut builder = env_logger::Builder::new();
    // It calls it an error of ours when somebody sends what is no HTTP.
    builder.filter_module("actix_http::h1::dispatcher", log::LevelFilter::Off);
    // It writes down whole answers that it cannot read, and secrets are among these. What a call came to, we
    // tell ourselves.
    builder.filter_module("kube_client::client", log::LevelFilter::Off);
    builder.parse_filters(filter);
    if format == LogFormat::Text {
        builder.format(|out, record| {
            let mut fields = PlainFields(String::new());
            // A field that cannot be read is left out; the record is still written.
            let _ = record.key_values().visit(&mut fields);
            writeln!(
                out,
                "[{} {:<5} {}] {}{}",
                out.timestamp(),
                record.level(),
                record.target(),
                one_line(&record.args().to_string()),
                fields.0
            )
        });
    } else {
        builder.format(|out, record| {
            let mut fields = Fields(Map::new());
            // A field that cannot be read is left out; the record is still written.
            let _ = record.key_values().visit(&mut fields);
            let Fields(mut line) = fields;
            line.insert("time".into(), json!(chrono::Utc::now()));
            line.insert("level".into(), json!(record.level().as_str()));
            line.insert("target".into(), json!(record.target()));
            line.insert("message".into(), json!(record.args().to_string()));
            writeln!(out, "{}", serde_json::Value::Object(line))
        });
    }
    // Only a second start in one process fails; the first one's settings then stay.
    let _ = builder.try_init();
}

/// A message without breaks and other control characters.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A value that ends where it seems to end: in quotes, unless it is a plain word.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && c != '=' && c.escape_debug().len() == 1;
    if value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("{value:?}")
    }
}

struct PlainFields(String);

impl<'kvs> VisitSource<'kvs> for PlainFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = quoted(&value.to_string());
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

struct Fields(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = value
            .to_u64()
            .map_or_else(|| json!(value.to_string()), |n| json!(n));
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_makes_no_field_and_no_line_of_its_own() {
        for (value, written) in [
            ("plain-Word_1.é/:[]", "plain-Word_1.é/:[]"),
            ("", ""),
            ("1 status=200 user=admin", r#""1 status=200 user=admin""#),
            ("a=b", r#""a=b""#),
            (r#"a"b"#, r#""a\"b""#),
            ("a\nb", r#""a\nb""#),
            ("\u{1b}[2J", r#""\u{1b}[2J""#),
            ("\u{202e}x", r#""\u{202e}x""#),
        ] {
            assert_eq!(quoted(value), written);
        }
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(one_line("a: b\nc\u{1b}[2J é"), "a: b\\nc\\u{1b}[2J é");
    }
}
