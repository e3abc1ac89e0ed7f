//! Configuration.

use std::time::Duration;

/// The effective configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {}

/// Reads `500ms`, `30s`, `5m`, `2h`, `90d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let wrong = || format!("a duration is a number and ms, s, m, h or d, got '{text}'");
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => Some(n),
        "s" => n.checked_mul(1000),
        "m" => n.checked_mul(60_000),
        "h" => n.checked_mul(3_600_000),
        "d" => n.checked_mul(86_400_000),
        _ => None,
    };
    ms.map(Duration::from_millis).ok_or_else(wrong)
}
