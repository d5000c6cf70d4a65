//! What a user sees: results on the standard output, everything else on the error output.
//!
//! Invariant: whatever a broker sends, no control character of it reaches a terminal. Every text
//! goes through [`clean`] on its way out.

use std::{
    cell::RefCell,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::error::{Error, Result};
use crate::model::size::size;

/// Pause between two frames of what turns while something goes on.
const FRAME: Duration = Duration::from_millis(100);

/// How results are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The two outputs.
pub struct Show {
    output: Output,
}

impl Show {
    /// Results are told as `output` says.
    pub fn new(output: Output) -> Self {
        Self { output }
    }

    /// Tells the result, in the one form or the other.
    pub fn result(&self, text: &str, value: &Value) -> Result<()> {
        match self.output {
            Output::Text => self.print(&lines(text)),
            Output::Json => self.json(value),
        }
    }

    /// Tells a result that is JSON in any case.
    pub fn json(&self, value: &Value) -> Result<()> {
        self.print(&json(value))
    }

    /// Tells a key: to people its credentials alone, to take them as they are.
    pub fn key(&self, key: &Value) -> Result<()> {
        match self.output {
            Output::Text => self.json(&key["credentials"]),
            Output::Json => self.json(key),
        }
    }

    fn print(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        // A reader that has gone wants no more: `services | head -1`.
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::file("standard output")(error))
            }
            _ => Ok(()),
        }
    }

    /// Tells what goes on.
    pub fn note(&self, text: &str) {
        note(text);
    }

    /// Begins to show how something goes on.
    pub fn progress(&self, title: &str) -> Progress {
        let title = clean(title);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {wide_msg}"));
            bar.set_message(title.clone());
            bar.enable_steady_tick(FRAME);
            bar
        });
        if bar.is_none() {
            note(&format!("{title} ..."));
        }
        Progress {
            title,
            bar,
            said: RefCell::default(),
        }
    }
}

/// Tells what goes on, on the error output. Nobody need be there to read it.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", lines(text));
}

/// Something that goes on: a bar on a terminal, else a line whenever there is something new.
pub struct Progress {
    title: String,
    bar: Option<ProgressBar>,
    said: RefCell<String>,
}

impl Progress {
    /// Tells how it goes, in the broker's words.
    pub fn say(&self, text: &str) {
        if text.is_empty() || self.said.replace(text.to_owned()) == text {
            return;
        }
        let clean = clean(text);
        let Some(bar) = &self.bar else {
            note(&format!("  {clean}"));
            return;
        };
        match share(text) {
            Some((done, total)) => self.draw(bar, done, total, "{pos}/{len}"),
            None => bar.set_style(style("{spinner} {wide_msg}")),
        }
        bar.set_message(format!("{}: {clean}", self.title));
    }

    /// Tells how many bytes there are, of how many if that is known.
    pub fn bytes(&self, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            match total {
                Some(total) => {
                    let counted = format!("{}/{}", size(done), size(total));
                    self.draw(bar, done, total, &counted);
                }
                None => {
                    bar.set_style(style(&format!("{{spinner}} {} {{wide_msg}}", size(done))));
                    bar.set_position(done);
                }
            }
        }
    }

    fn draw(&self, bar: &ProgressBar, done: u64, total: u64, counted: &str) {
        bar.set_style(style(&format!(
            "{{spinner}} [{{bar:24}}] {counted} {{wide_msg}}"
        )));
        bar.set_length(total);
        bar.set_position(done.min(total));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}

/// How far a description says that something is: `(step 2 of 7)` or `10%`.
fn share(text: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "(),;:".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let of = words.windows(4).find_map(|words| match words {
        ["step", done, "of", total] => Some((done.parse().ok()?, total.parse().ok()?)),
        _ => None,
    });
    let percent = || {
        words
            .iter()
            .find_map(|word| word.strip_suffix('%')?.parse().ok())
    };
    let (done, total) = of.or_else(|| percent().map(|percent| (percent, 100)))?;
    (done <= total && total > 0).then_some((done, total))
}

/// A text whose control characters, and those that turn the direction of writing, can be seen
/// instead of obeyed.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of several lines, each of them clean.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines.join("\n")
}

/// JSON in which nothing is left that a terminal would obey.
fn json(value: &Value) -> String {
    let text = format!("{value:#}");
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        // What JSON itself leaves as it is stands in its strings, where this means the same.
        if c != '\n' && obeyed(c) {
            clean.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            clean.push(c);
        }
    }
    clean
}

/// A table with its columns in line.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(head)
        .chain(rows.into_iter().map(|row| row.map(|cell| clean(&cell))))
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}   "));
            }
            line.trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Names and values, one below the other; those without a value are left out.
pub fn fields<const N: usize>(fields: [(&str, Option<String>); N]) -> String {
    let there: Vec<(&str, String)> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let width = there.iter().map(|(name, _)| name.len() + 1).max();
    let width = width.unwrap_or(0);
    let lines: Vec<String> = there
        .iter()
        .map(|(name, value)| format!("{:width$}   {}", format!("{name}:"), clean(value)))
        .collect();
    lines.join("\n")
}

/// A moment, in UTC and from now.
pub fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let ago = now - at;
    let (seconds, how) = match ago.num_seconds() {
        seconds @ 0.. => (seconds, "ago"),
        seconds => (-seconds, "from now"),
    };
    let (count, unit) = match seconds {
        ..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let many = if count == 1 { "" } else { "s" };
    let at = at.format("%Y-%m-%d %H:%M:%S UTC");
    format!("{at} ({count} {unit}{many} {how})")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let evil = "\u{1b}]0;owned\u{7} \u{9b}31m \u{202e}live\r\n\u{7f}";
        let shown = "\\u{1b}]0;owned\\u{7} \\u{9b}31m \\u{202e}live\\r\\n\\u{7f}";
        assert_eq!(clean(evil), shown);
        assert_eq!(table(["A"], [[evil.to_owned()]]), format!("A\n{shown}"));
        assert_eq!(
            fields([("a", Some(evil.to_owned()))]),
            format!("a:   {shown}")
        );
        let told = super::json(&json!({ evil: [evil] }));
        assert!(!told.chars().any(|c| c != '\n' && obeyed(c)), "{told}");
        let back: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(back, json!({ evil: [evil] }));
    }

    proptest! {
        #[test]
        fn nothing_is_obeyed_and_json_stays_what_it_is(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(obeyed));
            let value = json!({ "text": text });
            let told = super::json(&value);
            prop_assert!(!told.chars().any(|c| c != '\n' && obeyed(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&told).expect("JSON"), value);
        }
    }

    #[test]
    fn columns_stand_in_line() {
        let rows = [["a", "b"], ["long", "ö"]].map(|row| row.map(str::to_owned));
        let expected = "NAME   PLAN\na      b\nlong   ö";
        assert_eq!(table(["NAME", "PLAN"], rows), expected);
    }

    #[test]
    fn how_far_it_is_stands_in_its_description() {
        for (text, expected) in [
            ("Fetching (step 2 of 7), 57.8 of 269.2 MiB", Some((2, 7))),
            ("Creating service (10% complete).", Some((10, 100))),
            ("step 9 of 7", None),
            ("step x of 7", None),
            ("110%", None),
            ("waiting", None),
            ("", None),
        ] {
            assert_eq!(share(text), expected, "{text}");
        }
    }

    #[test]
    fn moments_and_sizes_are_told_as_people_say_them() {
        let now: DateTime<Utc> = "2026-11-22T13:57:31Z".parse().expect("a time");
        for (seconds, expected) in [
            (0, "2026-11-22 13:57:31 UTC (0 seconds ago)"),
            (61, "2026-11-22 13:56:30 UTC (1 minute ago)"),
            (7200, "2026-11-22 11:57:31 UTC (2 hours ago)"),
            (-86_400 * 3, "2026-11-25 13:57:31 UTC (3 days from now)"),
        ] {
            assert_eq!(moment(now - TimeDelta::seconds(seconds), now), expected);
        }
    }
}
