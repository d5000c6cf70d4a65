//! Sizes, for people.

/// Bytes in the unit that fits: `20.0 KiB`. As quotas count: 1 KiB is 2^10 bytes.
pub fn size(bytes: u64) -> String {
    const STEP: u64 = 1024;
    let (mut unit_bytes, mut unit) = (1, "bytes");
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if bytes / unit_bytes < STEP {
            break;
        }
        (unit_bytes, unit) = (unit_bytes * STEP, next);
    }
    if unit_bytes == 1 {
        return format!("{bytes} {unit}");
    }
    let tenths = u128::from(bytes) * 10 / u128::from(unit_bytes);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (20_512, "20.0 KiB"),
            (1_310_720, "1.2 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn every_size_is_short(bytes: u64) {
            prop_assert!(size(bytes).len() <= 12);
        }
    }
}
