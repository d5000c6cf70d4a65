//! How long something took, as pages, client and messages say it.

use chrono::TimeDelta;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// `under 0.1 s`, `0.8 s`, `45 s`, `2 min`, `2 min 5 s`, `3 h 4 min`: rounded down.
pub fn duration(of: TimeDelta) -> String {
    let milliseconds = of.num_milliseconds().max(0);
    let seconds = milliseconds / 1000;
    match seconds {
        _ if milliseconds < 100 => "under 0.1 s".to_owned(),
        ..10 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        10..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => two(seconds / MINUTE, "min", seconds % MINUTE, "s"),
        _ => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
    }
}

fn two(many: i64, unit: &str, rest: i64, unit_of_rest: &str) -> String {
    match rest {
        0 => format!("{many} {unit}"),
        _ => format!("{many} {unit} {rest} {unit_of_rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_units_at_most() {
        for (milliseconds, expected) in [
            (-5000, "under 0.1 s"),
            (99, "under 0.1 s"),
            (100, "0.1 s"),
            (840, "0.8 s"),
            (2500, "2.5 s"),
            (12_900, "12 s"),
            (45_000, "45 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (82_000, "1 min 22 s"),
            (125_000, "2 min 5 s"),
            (3_599_000, "59 min 59 s"),
            (3_600_000, "1 h"),
            (11_059_000, "3 h 4 min"),
        ] {
            assert_eq!(duration(TimeDelta::milliseconds(milliseconds)), expected);
        }
    }
}
