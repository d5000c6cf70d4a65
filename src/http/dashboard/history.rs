//! How a database was over time, as drawings: its size as lines, below them whether its members served.

use chrono::{DateTime, TimeDelta, Utc};

use super::show::range;
use crate::model::{
    history::{History, Reading},
    limits::{OUTAGES_SHOWN, READING_STRETCH, READING_STRETCH_COARSE, READINGS_KEPT},
    sentence::counted,
    size::size,
};

/// Width of a drawing in its own units.
const WIDTH: f64 = 600.0;
/// Height of the lines.
const HEIGHT: f64 = 100.0;
/// How much of the time before now a drawing shows, and what it is called.
const SPANS: [(&str, TimeDelta, &str); 2] = [
    ("Last day", TimeDelta::days(1), "%-d %b, %H:%M"),
    ("Last 30 days", READINGS_KEPT, "%-d %b"),
];

/// How a database was in a span of time.
pub struct Drawing {
    /// Which one.
    pub title: &'static str,
    /// For the addresses of its parts.
    pub id: usize,
    /// Corners of the lines of what was allocated; a new line where nobody looked.
    pub allocated: Vec<String>,
    /// The same of what was in use.
    pub used: Vec<String>,
    /// Whether the members served.
    pub cells: Vec<Cell>,
    /// The size at the upper edge.
    pub top: String,
    /// Moments at the left, in the middle, at the right.
    pub moments: [String; 3],
    /// The sizes, as a sentence.
    pub sizes: String,
    /// How the members served, as a sentence.
    pub members: String,
    /// The class of the colour that this sentence is about.
    pub worst: &'static str,
    /// When not all of them did, the newest in front.
    pub outages: Vec<String>,
}

/// A stretch of time in the strip below the lines.
pub struct Cell {
    /// Left edge.
    pub x: String,
    /// Width.
    pub width: String,
    /// A class of the style sheet.
    pub tone: &'static str,
    /// What to say of it.
    pub label: String,
}

/// The drawings of the history of a database that was `made` then; none while there is too little to draw.
pub fn drawings(history: &History, made: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Drawing> {
    let drawn = |(id, (title, span, form)): (usize, (&'static str, TimeDelta, &str))| {
        let readings = history.since(now - span);
        (readings.len() > 1).then(|| drawing(id, title, form, readings, made.max(now - span), now))
    };
    SPANS.into_iter().enumerate().filter_map(drawn).collect()
}

fn drawing(
    id: usize,
    title: &'static str,
    form: &str,
    readings: &[Reading],
    from: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Drawing {
    // What is known may be younger than the span.
    let from = readings.first().map_or(from, |first| first.at.max(from));
    let axis = Axis { from, until: now };
    let top = readings.iter().filter_map(|of| of.allocated).max();
    let line = |value: fn(&Reading) -> Option<u64>| lines(readings, value, top.unwrap_or(1), &axis);
    let stretches = stretches(readings, from, now);
    Drawing {
        title,
        id,
        allocated: line(|of| of.allocated),
        used: line(|of| of.used),
        cells: stretches.iter().map(|of| cell(of, &axis)).collect(),
        top: top.map_or_else(String::new, size),
        moments: [from, from + (now - from) / 2, now].map(|at| at.format(form).to_string()),
        sizes: sizes(readings),
        members: members(&stretches),
        worst: worst(&stretches),
        outages: outages(&stretches),
    }
}

/// Where moments lie between the left and the right.
struct Axis {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Axis {
    fn x(&self, at: DateTime<Utc>) -> f64 {
        let part = (at - self.from).as_seconds_f64() / (self.until - self.from).as_seconds_f64();
        if part.is_finite() {
            part.clamp(0.0, 1.0) * WIDTH
        } else {
            0.0
        }
    }
}

/// How long a reading may stand for what comes after it.
fn end_of(readings: &[Reading], place: usize, now: DateTime<Utc>) -> DateTime<Utc> {
    let of = &readings[place];
    match readings.get(place + 1) {
        Some(next) => next.at.min(of.at + READING_STRETCH_COARSE),
        None => now.min(of.at + READING_STRETCH),
    }
}

/// A value over time as lines; where it is not known, one ends and another begins.
fn lines(
    readings: &[Reading],
    value: fn(&Reading) -> Option<u64>,
    top: u64,
    axis: &Axis,
) -> Vec<String> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a drawing has some hundred units"
    )]
    let y = |value: u64| HEIGHT - value as f64 / top.max(1) as f64 * HEIGHT;
    let corner = |at, value: u64| format!("{:.1},{:.1}", axis.x(at), y(value));
    let (mut lines, mut corners): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut height = None;
    for (place, reading) in readings.iter().enumerate() {
        let end = end_of(readings, place, axis.until);
        if let Some(value) = value(reading) {
            // What stays the same is one stretch of the line.
            if height.replace(value) == Some(value) {
                corners.pop();
            } else {
                corners.push(corner(reading.at, value));
            }
            corners.push(corner(end, value));
        }
        let goes_on = readings.get(place + 1).is_some_and(|next| next.at <= end);
        if (value(reading).is_none() || !goes_on) && !corners.is_empty() {
            lines.push(std::mem::take(&mut corners).join(" "));
            height = None;
        }
    }
    lines
}

/// A time in which members served alike.
struct Stretch {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    members: usize,
    /// How many served, when the fewest did; none where nobody could look.
    serving: Option<usize>,
    is_usable: bool,
}

/// What readings tell of the members; those that follow each other and tell the same are one.
fn stretches(readings: &[Reading], from: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for (place, of) in readings.iter().enumerate() {
        let until = end_of(readings, place, now);
        let is_usable = of.usable != Some(false);
        match all.last_mut() {
            Some(last)
                if last.until >= of.at
                    && (last.members, last.serving, last.is_usable)
                        == (of.members, of.serving, is_usable) =>
            {
                last.until = until;
            }
            _ => all.push(Stretch {
                // A reading stands for a quarter of an hour that may have begun before.
                from: of.at.max(from),
                until,
                members: of.members,
                serving: of.serving,
                is_usable,
            }),
        }
    }
    all
}

impl Stretch {
    fn is_outage(&self) -> bool {
        self.is_short() || self.is_closed()
    }

    fn is_short(&self) -> bool {
        self.serving.is_some_and(|serving| serving < self.members)
    }

    /// Whether all members served, and its users were not let in.
    fn is_closed(&self) -> bool {
        self.serving.is_some() && !self.is_short() && !self.is_usable
    }

    /// A class of the style sheet.
    fn tone(&self) -> &'static str {
        match self.serving {
            None => "unseen-time",
            Some(_) if !self.is_usable => "down-time",
            Some(_) if self.is_short() => "short-time",
            Some(_) => "whole-time",
        }
    }

    fn label(&self) -> String {
        let form = if self.from.date_naive() == self.until.date_naive() {
            "%H:%M"
        } else {
            "%-d %b, %H:%M"
        };
        let (from, until) = (self.from.format("%-d %b, %H:%M"), self.until.format(form));
        let how = match self.serving {
            None => "nobody could look".to_owned(),
            Some(serving) if self.is_short() && !self.is_usable => {
                format!(
                    "at worst {serving} of {} served, and it could not be used",
                    self.members
                )
            }
            Some(serving) if self.is_short() => {
                format!("at worst {serving} of {} served", self.members)
            }
            Some(serving) if self.is_closed() => {
                format!("{serving} of {} served, closed to its users", self.members)
            }
            Some(serving) => format!("{serving} of {} served", self.members),
        };
        format!("{from} to {until} UTC: {how}")
    }
}

fn cell(of: &Stretch, axis: &Axis) -> Cell {
    let (left, right) = (axis.x(of.from), axis.x(of.until));
    Cell {
        x: format!("{left:.1}"),
        // A short outage is seen, too.
        width: format!(
            "{:.1}",
            (right - left).max(2.0).min(WIDTH - left.min(WIDTH - 2.0))
        ),
        tone: of.tone(),
        label: of.label(),
    }
}

fn sizes(readings: &[Reading]) -> String {
    let span = |value: fn(&Reading) -> Option<u64>| {
        let values = || readings.iter().filter_map(value);
        Some(range(size(values().min()?), size(values().max()?)))
    };
    let quota = readings
        .last()
        .map_or_else(String::new, |of| size(of.quota));
    match (span(|of| of.allocated), span(|of| of.used)) {
        (None, _) => "No member said how much it holds.".to_owned(),
        (Some(allocated), None) => format!("Allocated: {allocated}, of {quota}."),
        (Some(allocated), Some(used)) => {
            format!("Allocated: {allocated}, of {quota}. In use (dotted): {used}.")
        }
    }
}

fn members(stretches: &[Stretch]) -> String {
    let was = |how: fn(&Stretch) -> bool| stretches.iter().any(how);
    let worst = "each quarter of an hour has the colour of its worst moment:";
    if !was(|of| of.serving.is_some()) {
        return "Nobody could look at the members.".to_owned();
    }
    match (was(Stretch::is_short), was(Stretch::is_closed)) {
        (false, false) => "All members served whenever the broker looked.".to_owned(),
        (false, true) => format!("It was closed to its users at times; {worst}"),
        (true, false) => format!("Not all members served; {worst}"),
        (true, true) => {
            format!("Not all members served, and it was closed to its users at times; {worst}")
        }
    }
}

/// The colour of the worst that is told.
fn worst(stretches: &[Stretch]) -> &'static str {
    let has = |tone: &&str| stretches.iter().any(|of| of.tone() == *tone);
    let worst_first = ["down-time", "short-time", "whole-time"];
    worst_first.into_iter().find(has).unwrap_or("unseen-time")
}

fn outages(stretches: &[Stretch]) -> Vec<String> {
    let all: Vec<&Stretch> = stretches.iter().filter(|of| of.is_outage()).collect();
    let shown = all.iter().rev().take(OUTAGES_SHOWN);
    let mut told: Vec<String> = shown.map(|of| of.label()).collect();
    if all.len() > OUTAGES_SHOWN {
        told.push(format!(
            "{} before",
            counted(all.len() - OUTAGES_SHOWN, "time")
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_100 + 60 * minutes, 0).expect("a time")
    }

    fn history(of: &[(i64, Option<u64>, Option<usize>)]) -> History {
        let mut history = History::default();
        for (minutes, allocated, serving) in of {
            history.note(Reading {
                at: at(*minutes),
                allocated: *allocated,
                used: None,
                quota: 4096,
                members: 3,
                serving: *serving,
                usable: serving.map(|serving| serving > 1),
            });
        }
        history
    }

    #[test]
    fn a_day_is_drawn_with_its_gaps_and_outages() {
        let made = at(-60);
        assert!(drawings(&history(&[(0, Some(1), Some(3))]), made, at(15)).is_empty());
        let history = history(&[
            (0, Some(1024), Some(3)),
            (15, Some(2048), Some(3)),
            (30, None, Some(1)),
            (45, Some(1024), Some(3)),
        ]);
        let [day, month] = &drawings(&history, made, at(60))[..] else {
            panic!("two drawings");
        };
        assert_eq!((day.title, month.title), ("Last day", "Last 30 days"));
        assert_eq!(
            day.allocated,
            [
                "0.0,50.0 150.0,50.0 150.0,0.0 300.0,0.0",
                "450.0,50.0 600.0,50.0"
            ]
        );
        let tones: Vec<_> = day
            .cells
            .iter()
            .map(|cell| (cell.tone, cell.x.as_str()))
            .collect();
        assert_eq!(
            tones,
            [
                ("whole-time", "0.0"),
                ("down-time", "300.0"),
                ("whole-time", "450.0")
            ]
        );
        assert_eq!(day.sizes, "Allocated: 1.0 KiB to 2.0 KiB, of 4.0 KiB.");
        assert_eq!(
            day.members,
            "Not all members served; each quarter of an hour has the colour of its worst moment:"
        );
        assert_eq!(day.worst, "down-time");
        assert_eq!(
            day.outages,
            ["14 Nov, 22:45 to 23:00 UTC: at worst 1 of 3 served, and it could not be used"]
        );
    }

    #[test]
    fn a_time_in_which_it_was_closed_to_its_users_is_an_outage() {
        let mut history = history(&[(0, None, Some(3)), (30, None, Some(3))]);
        history.note(Reading {
            at: at(30),
            allocated: None,
            used: None,
            quota: 4096,
            members: 3,
            serving: Some(3),
            usable: Some(false),
        });
        let day = &drawings(&history, at(-60), at(45))[0];
        assert_eq!(
            day.members,
            "It was closed to its users at times; each quarter of an hour has the colour of its worst moment:"
        );
        assert_eq!(day.worst, "down-time");
        assert_eq!(
            day.outages,
            ["14 Nov, 22:45 to 23:00 UTC: 3 of 3 served, closed to its users"]
        );
    }

    #[test]
    fn nothing_is_drawn_of_the_time_before_a_database_was_made() {
        let history = history(&[(0, Some(1024), Some(2)), (15, Some(1024), Some(3))]);
        let day = &drawings(&history, at(11), at(20))[0];
        // The first reading stands for a quarter of an hour, of which four minutes are left.
        assert_eq!(day.allocated, ["0.0,0.0 600.0,0.0"]);
        let widths: Vec<_> = day
            .cells
            .iter()
            .map(|cell| (&*cell.x, &*cell.width))
            .collect();
        assert_eq!(widths, [("0.0", "266.7"), ("266.7", "333.3")]);
        assert_eq!(day.worst, "short-time");
        assert_eq!(
            day.outages,
            ["14 Nov, 22:26 to 22:30 UTC: at worst 2 of 3 served"]
        );
    }

    #[test]
    fn what_was_well_is_one_sentence() {
        let history = history(&[(0, None, Some(3)), (15, None, Some(3)), (30, None, None)]);
        let day = &drawings(&history, at(-60), at(60))[0];
        assert_eq!(
            day.members,
            "All members served whenever the broker looked."
        );
        assert_eq!(day.sizes, "No member said how much it holds.");
        assert_eq!((day.allocated.len(), day.cells.len()), (0, 2));
        assert_eq!(day.worst, "whole-time");
    }
}
