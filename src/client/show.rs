//! What a user sees: results on the standard output, everything else on the error output.
//!
//! Invariant: whatever a broker sends, no control character of it reaches a terminal. Every text
//! goes through [`clean()`] on its way out.

use std::{
    cell::RefCell,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{
    clean::{clean, obeyed},
    error::{Error, Result},
    table::{self, TIE, columns, cut},
};
use crate::model::{duration::duration, relative_time::ahead, sentence::counted, size};

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

/// The bar of what goes on, in columns.
const BAR: usize = 12;

/// The two outputs.
pub struct Show {
    output: Output,
    /// The columns that results may take; none: any number.
    width: Option<usize>,
    /// The same of what goes on.
    width_of_notes: Option<usize>,
}

impl Show {
    /// Results are told as `output` says, in so many columns as the user names, else as the terminal has.
    pub fn new(output: Output, columns: Option<usize>) -> Self {
        Self {
            output,
            width: columns.or_else(|| width(io::stdout())),
            width_of_notes: columns.or_else(|| width(io::stderr())),
        }
    }

    /// A table that fits.
    pub fn table<const N: usize>(
        &self,
        head: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> String {
        table::table(head, rows, self.width)
    }

    /// A table that fits; where it has no rows, what says so.
    pub fn listed<const N: usize>(
        &self,
        head: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
        none: &str,
    ) -> String {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return none.to_owned();
        }
        self.table(head, rows)
    }

    /// Names and values that fit, one below the other; those without a value are left out.
    pub fn fields<const N: usize>(&self, fields: [(&str, Option<String>); N]) -> String {
        table::fields(fields, self.width)
    }

    /// Tells the result, in the one form or the other.
    pub fn result(&self, text: &str, value: &Value) -> Result<()> {
        match self.output {
            Output::Text => self.print(&lines(text)),
            Output::Json => self.json(value),
        }
    }

    /// How results are told.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Tells a line of a result that goes on.
    pub fn line(&self, text: &str) -> Result<()> {
        self.print(&clean(text))
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
        let width = self.width_of_notes.unwrap_or(usize::MAX);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {prefix} {elapsed}"));
            // Room for what turns, and for the time that has passed.
            bar.set_prefix(cut(&title, width.saturating_sub(10)));
            bar.enable_steady_tick(FRAME);
            bar
        });
        if bar.is_none() {
            note(&format!("{title} ..."));
        }
        Progress {
            title,
            bar,
            began: Instant::now(),
            width,
            said: RefCell::default(),
        }
    }
}

/// Tells what goes on, on the error output. Nobody need be there to read it.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", lines(text));
}

/// How wide the terminal is that this leads to; none: it leads elsewhere.
pub(super) fn width(of: impl AsFd + io::IsTerminal) -> Option<usize> {
    let size = of.is_terminal().then(|| rustix::termios::tcgetwinsize(of));
    let columns = usize::from(size?.ok()?.ws_col);
    (columns > 0).then_some(columns)
}

/// Something that goes on: two lines on a terminal, what it is and how it goes; elsewhere a line whenever
/// there is something new.
pub struct Progress {
    title: String,
    bar: Option<ProgressBar>,
    began: Instant,
    width: usize,
    said: RefCell<String>,
}

impl Progress {
    /// Tells how it goes, in the broker's words.
    pub fn say(&self, text: &str) {
        // A terminal counts down in its place; elsewhere each second would be one more line.
        let new = match &self.bar {
            Some(_) => text.to_owned(),
            None => without_countdown(text),
        };
        if new.is_empty() || self.said.replace(new.clone()) == new {
            return;
        }
        let clean = clean(text);
        let Some(bar) = &self.bar else {
            note(&format!("  {clean}"));
            return;
        };
        self.draw(bar, share(text), &clean);
    }

    /// Tells how many bytes there are, and of how many if that is known; `about`: of how many it may be,
    /// where it is not.
    pub fn bytes(&self, done: u64, total: Option<u64>, about: Option<u64>) {
        let Some(bar) = &self.bar else {
            return;
        };
        let about = about.filter(|about| done <= *about);
        let there = size::size(done);
        let counted = match (total, about) {
            (Some(total), _) => format!("{there} of {}", size::size(total)),
            (None, Some(about)) => format!("{there} of about {}", size::size(about)),
            (None, None) => there,
        };
        self.draw(bar, total.or(about).map(|total| (done, total)), &counted);
    }

    fn draw(&self, bar: &ProgressBar, share: Option<(u64, u64)>, text: &str) {
        let taken = match share {
            Some((done, total)) => {
                bar.set_style(style(&format!(
                    "{{spinner}} {{prefix}} {{elapsed}}\n  [{{bar:{BAR}}}] {{msg}}"
                )));
                bar.set_length(total);
                bar.set_position(done.min(total));
                BAR + columns("  [] ")
            }
            None => {
                bar.set_style(style("{spinner} {prefix} {elapsed}\n  {msg}"));
                columns("  ")
            }
        };
        bar.set_message(cut(text, self.width.saturating_sub(taken + 1)));
    }

    /// It has come to a good end: what stays is how long it took.
    pub fn done(self) {
        let took = TimeDelta::from_std(self.began.elapsed()).unwrap_or(TimeDelta::MAX);
        let (title, took) = (self.title.clone(), duration(took));
        drop(self);
        note(&format!("{title}: done in {took}"));
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
    let style = ProgressStyle::with_template(template);
    style.expect("the templates above are well formed")
}

/// A description without the time until the next try: `3rd try, next in 8 s: no answer`.
fn without_countdown(text: &str) -> String {
    let Some((before, after)) = text.split_once(", next in ") else {
        return text.to_owned();
    };
    let reason = after.find(':').map_or("", |at| &after[at..]);
    format!("{before}{reason}")
}

/// How far a description says that something is: `(step 2 of 7)`, of which one is done, or `10%`.
fn share(text: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "(),;:".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let of = words.windows(4).find_map(|words| match words {
        ["step", step, "of", total] => {
            let (step, total): (u64, u64) = (step.parse().ok()?, total.parse().ok()?);
            (step <= total).then_some((step.checked_sub(1)?, total))
        }
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

/// A size that no line ends in.
pub fn tied_size(bytes: u64) -> String {
    size::size(bytes).replace(' ', &TIE.to_string())
}

/// A moment, in UTC and from now, for tables and fields.
pub fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seen = match (now - at).num_seconds() {
        seconds @ 0..60 => format!("{} ago", counted(seconds, "second")),
        seconds @ 60..3600 => format!("{} ago", counted(seconds / 60, "minute")),
        seconds @ 3600..86_400 => format!("{} ago", counted(seconds / 3600, "hour")),
        seconds @ 86_400.. => format!("{} ago", counted(seconds / 86_400, "day")),
        seconds => format!("{} from now", ahead(-seconds)),
    };
    let seen = seen.replace(' ', &TIE.to_string());
    let at = at.format("%Y-%m-%d %H:%M:%S");
    format!("{at}{TIE}UTC ({seen})")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_countdown_is_nothing_new() {
        let told = "Starting (step 2 of 4); 3rd try, since 08:33:01 UTC";
        for (text, known) in [
            (
                format!("{told}, next in 8 s: m0: refused"),
                format!("{told}: m0: refused"),
            ),
            (format!("{told}, next in 1 min"), told.to_owned()),
            (told.to_owned(), told.to_owned()),
        ] {
            assert_eq!(without_countdown(&text), known);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let evil = "\u{1b}]0;owned\u{7} \u{9b}31m \u{202e}live\r\n\u{7f}";
        let shown = "\\u{1b}]0;owned\\u{7} \\u{9b}31m \\u{202e}live\\r\\n\\u{7f}";
        assert_eq!(clean(evil), shown);
        let told = table::table(["A"], [[evil.to_owned()]], None);
        assert_eq!(told, format!("A\n{shown}"));
        let told = table::fields([("a", Some(evil.to_owned()))], None);
        assert_eq!(told, format!("a:   {shown}"));
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
    fn how_far_it_is_stands_in_its_description() {
        for (text, expected) in [
            ("Fetching (step 2 of 7), 57.8 of 269.2 MiB", Some((1, 7))),
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
            // As the page rounds it.
            (
                1 - 86_400 * 14,
                "2026-12-06 13:57:30 UTC (14 days from now)",
            ),
            (-20, "2026-11-22 13:57:51 UTC (20 seconds from now)"),
        ] {
            let told = moment(now - TimeDelta::seconds(seconds), now);
            assert_eq!(told.replace(TIE, " "), expected);
        }
    }
}
