//! Amounts as the API server writes them.

/// Units by what stands behind the number.
const UNITS: [(&str, f64); 13] = [
    ("Ki", 1024.0),
    ("Mi", 1024.0 * 1024.0),
    ("Gi", 1024.0 * 1024.0 * 1024.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("m", 1e-3),
];

/// An amount of bytes; 0 where it cannot be read.
pub(super) fn bytes(text: &str) -> u64 {
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = match unit {
        Some((unit, factor)) => (text.trim_end_matches(unit), *factor),
        None => (text, 1.0),
    };
    let amount = number.parse::<f64>().unwrap_or_default() * factor;
    // What is larger than any disk, or negative, is cut.
    amount as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_all_their_units() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("100Mi", 104_857_600),
            ("1.5Gi", 1_610_612_736),
            ("2G", 2_000_000_000),
            ("1e3", 1000),
            ("1500m", 1),
            ("16Ti", 17_592_186_044_416),
            ("much", 0),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
