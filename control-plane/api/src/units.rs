//! Sizes and durations as people write them in flags, configuration files and queries, and read them in messages.

use std::time::Duration;

/// Longest duration that is accepted: 100 years.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// Parses a size such as `512MiB`, `4G`, `1.5GiB` or `4096` into bytes. K, M, G and T are binary units, as with QEMU;
/// kB, MB, GB and TB are decimal ones.
///
/// # Errors
/// A message for people with what was expected and what was given.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a size such as 512MiB or 10GiB, got '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let mut total = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        // With up to nine digits the arithmetic is exact, and people write no more.
        if fraction.len() > 9 {
            return Err(wrong());
        }
        let parts: u64 = fraction.parse().map_err(|_| wrong())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        total += u128::from(parts) * u128::from(factor) / scale;
    }
    u64::try_from(total).map_err(|_| wrong())
}

/// Parses a duration such as `500ms`, `30s`, `5m`, `2h` or `90d`.
///
/// # Errors
/// A message for people with what was expected and what was given.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 500ms, 30s, 5m, 2h or 90d, got '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => return Some(number).filter(|ms| ms / 1000 <= SECONDS_MAX).map(Duration::from_millis).ok_or_else(wrong),
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let total = number.checked_mul(seconds).filter(|total| *total <= SECONDS_MAX);
    total.map(Duration::from_secs).ok_or_else(wrong)
}

/// Writes a size without rounding, in the largest unit that divides it: `512 MiB`, `1025 B`.
#[must_use]
pub fn exact_size(bytes: u64) -> String {
    exact(bytes, &[(1 << 40, " TiB"), (1 << 30, " GiB"), (1 << 20, " MiB"), (1 << 10, " KiB"), (1, " B")])
}

/// Writes a duration without rounding, in the largest unit that divides it, as [`parse_duration`] reads it: `7d`, `90s`.
#[must_use]
pub fn exact_duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => exact(duration.as_secs(), &[(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")]),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// `units` are the largest first, each with how many of the smallest it has.
fn exact(count: u64, units: &[(u64, &str)]) -> String {
    let fits = |(factor, _): &&(u64, &str)| *factor == 1 || (count > 0 && count.is_multiple_of(*factor));
    let (factor, unit) = units.iter().find(fits).expect("the smallest unit fits every count");
    format!("{}{unit}", count / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("256KiB", 256 << 10),
            ("4G", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("1kB", 1000),
            ("2GB", 2_000_000_000),
            ("16 TiB", 16 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for bad in ["", "x", "MiB", "-1", ".5G", "1.2.3G", "1XiB", "99999999999TiB", "1.0000000000001G", "1é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_exact() {
        for (bytes, text) in
            [(0, "0 B"), (1, "1 B"), (1025, "1025 B"), (3 << 29, "1536 MiB"), (1 << 20, "1 MiB"), (16 << 40, "16 TiB")]
        {
            assert_eq!(exact_size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for (ms, text) in [(0, "0s"), (500, "500ms"), (90_000, "90s"), (300_000, "5m"), (604_800_000, "7d")] {
            let duration = Duration::from_millis(ms);
            assert_eq!(exact_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn durations_need_a_unit_and_are_limited() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2min"), parse_duration("2m"));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in ["", "5", "s", "1w", "1.5s", "-1s", "99999999999999999999s", "9999999999d", "9999999999999999ms"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
