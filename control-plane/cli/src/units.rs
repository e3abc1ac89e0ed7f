//! Sizes, times and labels as people write and read them.

use std::time::Duration;

/// `512MiB`, `4G`, `1.5GiB`, `4096`: K, M, G, T are binary as with QEMU; kB, MB, GB, TB are decimal.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
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
        if fraction.len() > 9 {
            return Err(wrong());
        }
        let parts: u64 = fraction.parse().map_err(|_| wrong())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        total += u128::from(parts) * u128::from(factor) / scale;
    }
    u64::try_from(total).map_err(|_| wrong())
}

/// `500ms`, `30s`, `5m`, `2h`, `90d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 500ms, 30s, 5m or 2h, got '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = |per: u64| number.checked_mul(per).filter(|s| *s <= 100 * 365 * 86_400).ok_or_else(wrong);
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(seconds(1)?),
        "m" | "min" => Duration::from_secs(seconds(60)?),
        "h" => Duration::from_secs(seconds(3_600)?),
        "d" => Duration::from_secs(seconds(86_400)?),
        _ => return Err(wrong()),
    })
}

/// `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected KEY=VALUE, got '{text}'")),
    }
}

/// `KEY=VALUE`, kept as it is.
pub(crate) fn parse_label_text(text: &str) -> Result<String, String> {
    parse_label(text).map(|_| text.to_owned())
}

/// `IMAGE` or `IMAGE@N`.
pub(crate) fn parse_image(text: &str) -> Result<(&str, Option<u64>), String> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((image, number)) => match number.parse() {
            Ok(n) if n > 0 && !image.is_empty() => Ok((image, Some(n))),
            _ => Err(format!("expected IMAGE or IMAGE@N with a number from 1, got '{text}'")),
        },
    }
}

/// `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_235 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if tenths % 10 == 0 || tenths >= 1000 {
        format!("{} {unit}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// `350 ms`, `2.1 s`, `3 min 5 s`.
pub(crate) fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// `12s`, `3m`, `5h`, `12d`: how old something is.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, expected) in [
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("256KiB", 256 << 10),
            ("4G", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("16 TiB", 16 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.2.3G", "1XiB", "99999999999TiB", "1.0000000000001G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in ["", "5", "s", "1w", "-1s", "99999999999999999999s", "9999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn image_references_may_carry_a_number() {
        assert_eq!(parse_image("debian"), Ok(("debian", None)));
        assert_eq!(parse_image("debian@12"), Ok(("debian", Some(12))));
        for bad in ["debian@", "debian@0", "debian@x", "@1"] {
            assert!(parse_image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn printed_sizes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn printed_times_are_short() {
        assert_eq!(millis(350), "350 ms");
        assert_eq!(millis(2_149), "2.1 s");
        assert_eq!(millis(185_000), "3 min 5 s");
        assert_eq!(age(59), "59s");
        assert_eq!(age(3_600), "60m");
        assert_eq!(age(400_000), "4d");
    }
}
