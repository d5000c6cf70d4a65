//! How long work will take, by how long work of its kind took: a straight line through the past that
//! single cases far off do not bend (Theil and Sen's: medians of slopes and of remainders).

use chrono::TimeDelta;

use super::{duration::duration, sentence::counted};

/// Two cases tell what a byte takes when they are so many bytes apart. Between smaller ones chance makes the difference,
/// and would be multiplied.
const APART_BYTES: u64 = 1024 * 1024;

/// Work that was done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Past {
    /// How much there was to do, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: TimeDelta,
}

/// How long work will take, and what that is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// About so long.
    pub about: TimeDelta,
    /// How many cases of the past it is taken from.
    pub cases: usize,
}

impl Estimate {
    /// How long that is in whole seconds, rounded up.
    pub fn seconds(self) -> u64 {
        let seconds = (self.about + TimeDelta::milliseconds(999)).num_seconds();
        u64::try_from(seconds).unwrap_or_default()
    }
}

/// How long a restore takes, as a sentence: about so many seconds, going by so many earlier ones.
pub fn restore_takes(about: Option<(u64, u64)>) -> String {
    match about {
        Some((seconds, 1)) => {
            format!(
                "About {}, as the one restore so far took.",
                in_words(seconds)
            )
        }
        Some((seconds, restores)) => format!(
            "About {}, going by {}.",
            in_words(seconds),
            counted(restores, "earlier restore")
        ),
        None => "How long it takes is not known: there is no earlier restore to go by.".to_owned(),
    }
}

/// A number of seconds, which is known to the second at best: `8 s`, `1 min 22 s`.
fn in_words(seconds: u64) -> String {
    match seconds {
        ..10 => format!("{seconds} s"),
        _ => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            duration(TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX))
        }
    }
}

/// How long work with so many bytes will take; none where nothing of the past is known. More bytes never
/// take less time.
pub fn estimate(past: &[Past], bytes: u64) -> Option<Estimate> {
    let seconds = |of: &Past| of.took.as_seconds_f64().max(0.0);
    let pairs = past.iter().enumerate().flat_map(|(i, one)| {
        past[..i]
            .iter()
            .filter(move |other| other.bytes.abs_diff(one.bytes) >= APART_BYTES)
            .map(move |other| {
                (seconds(one) - seconds(other)) / (size(one.bytes) - size(other.bytes))
            })
    });
    let per_byte = median(pairs.collect()).unwrap_or_default().max(0.0);
    let rests = past
        .iter()
        .map(|of| seconds(of) - per_byte * size(of.bytes));
    let fixed = median(rests.collect())?.max(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and nobody waits for so long"
    )]
    let milliseconds = ((fixed + per_byte * size(bytes)) * 1000.0).round() as i64;
    Some(Estimate {
        about: TimeDelta::try_milliseconds(milliseconds).unwrap_or(TimeDelta::MAX),
        cases: past.len(),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate needs no single bytes"
)]
fn size(bytes: u64) -> f64 {
    bytes as f64
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn past(mebibytes: u64, seconds: i64) -> Past {
        Past {
            bytes: mebibytes * MIB,
            took: TimeDelta::seconds(seconds),
        }
    }

    fn seconds(of: &[Past], mebibytes: u64) -> Option<i64> {
        estimate(of, mebibytes * MIB).map(|e| e.about.num_seconds())
    }

    #[test]
    fn the_past_tells_what_comes() {
        // Nothing is known: nothing is told.
        assert_eq!(seconds(&[], 5), None);
        // One case tells of nothing but itself, and so do cases of one size.
        assert_eq!(seconds(&[past(10, 9)], 500), Some(9));
        assert_eq!(
            seconds(&[past(10, 9), past(10, 11), past(10, 10)], 500),
            Some(10)
        );
        // 5 s and one for each 10 MiB.
        let two = [past(10, 6), past(100, 15)];
        assert_eq!(seconds(&two, 200), Some(25));
        assert_eq!(seconds(&two, 0), Some(5));
        // One that waited for half an hour does not count much.
        let odd = [
            past(10, 6),
            past(100, 15),
            past(50, 10),
            past(60, 1800),
            past(80, 13),
        ];
        assert!(
            (20..40).contains(&seconds(&odd, 200).expect("an estimate")),
            "{odd:?}"
        );
        // Small ones that took different times say nothing of large ones.
        let small = [(20, 9), (21, 10), (23, 14)].map(|(kibibytes, took)| Past {
            bytes: kibibytes * 1024,
            took: TimeDelta::seconds(took),
        });
        assert_eq!(seconds(&small, 20), Some(10));
        // A large one that was quicker does not make larger ones quicker still.
        let less = [past(10, 20), past(100, 10)];
        assert_eq!(seconds(&less, 1000), Some(15));
        assert_eq!(estimate(&less, 0).map(|e| e.cases), Some(2));
    }

    proptest! {
        #[test]
        fn more_bytes_never_take_less_time(
            of in prop::collection::vec((0u64..1 << 40, 0i64..100_000_000), 1..20),
            one in any::<u64>(),
            other in any::<u64>(),
        ) {
            let of: Vec<Past> = of.into_iter().map(|(bytes, took)| Past {
                bytes,
                took: TimeDelta::milliseconds(took),
            }).collect();
            let about = |bytes| estimate(&of, bytes).expect("an estimate").about;
            prop_assert!(about(one.min(other)) <= about(one.max(other)));
            prop_assert!(about(0) >= TimeDelta::zero());
        }

        #[test]
        fn a_line_is_found_again(fixed in 0i64..600, per_mebibyte in 0i64..20, sizes in prop::collection::btree_set(0u64..4096, 2..12), next in 0u64..4096) {
            let on_line = |mebibytes: u64| fixed + per_mebibyte * i64::try_from(mebibytes).expect("small");
            let of: Vec<Past> = sizes.iter().map(|m| past(*m, on_line(*m))).collect();
            let found = seconds(&of, next).expect("an estimate");
            prop_assert!((found - on_line(next)).abs() <= 1, "{} for {}", found, on_line(next));
        }
    }
}
