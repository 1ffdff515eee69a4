//! The clock, and how moments are written into names.

use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};
use std::time::Duration;

/// Now, as it goes into names of directories: `20261120T100000Z`.
pub(crate) fn for_names() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Reads a length of time as Go's flags take it: `500ms`, `5s`, `1m30s`; days (of 24 hours) and
/// weeks as well: `7d`. Nought needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no length of time such as 500ms, 5s, 1m30s or 7d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// Fills the date patterns (`%Y`, `%m`, …) of a name, in UTC.
pub(crate) fn fill_pattern(name: &str, now: Timestamp) -> Result<String, String> {
    let now = now.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(name, &now).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_as_go_writes_them() {
        let parsed = |text| parse_duration(text).ok();
        assert_eq!(parsed("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parsed("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parsed("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parsed("7d"), Some(Duration::from_secs(7 * 86_400)));
        // Once the help of a flag said 0, which was refused.
        assert_eq!(parsed("0"), Some(Duration::ZERO));
        assert_eq!(parsed("1w 2h"), Some(Duration::from_secs(7 * 86_400 + 7200)));
        for bad in ["", "5", "-5s", "five", "1mo", "1y"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_with_dates() {
        let now: Timestamp = "2026-11-20T09:05:03Z".parse().unwrap();
        let filled = |name| fill_pattern(name, now);
        assert_eq!(filled("snap.db").as_deref(), Ok("snap.db"));
        assert_eq!(filled("b/%Y-%m-%d/%H%M%S.db").as_deref(), Ok("b/2026-11-20/090503.db"));
        assert_eq!(filled("100%%.db").as_deref(), Ok("100%.db"));
        assert!(filled("%!").is_err());
    }
}
