//! Values as people write them: times, bytes, secrets.

use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// Reads a length of time as Go's flags take it: `500ms`, `5s`, `1m30s`; days (of 24 hours) and
/// weeks as well: `7d`. Nought needs no unit.
///
/// # Errors
/// What it should look like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no length of time such as 500ms, 5s, 1m30s or 7d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// Fills the date patterns (`%Y`, `%m`, …) of a name, in UTC.
///
/// # Errors
/// What is wrong with them.
pub fn fill_pattern(name: &str, now: Timestamp) -> Result<String, String> {
    let now = now.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(name, &now).map_err(|error| error.to_string())
}

/// The date in a name, where the pattern, filled in with it, gives that very name.
#[must_use]
pub fn date_in(pattern: &str, name: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::strtime::parse(pattern, name).ok()?;
    let of_day = || parsed.to_date().ok().map(|day| day.at(0, 0, 0, 0));
    let at = parsed.to_timestamp().ok().or_else(|| {
        let at = parsed.to_datetime().ok().or_else(of_day)?;
        Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    (fill_pattern(pattern, at).ok()? == name).then_some(at)
}

/// Reads a number of bytes, such as `50MiB`.
///
/// # Errors
/// What it should look like.
pub fn parse_bytes(text: &str) -> Result<NonZeroU64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .and_then(NonZeroU64::new)
        .ok_or_else(|| "give a number of bytes such as 1048576, 512KiB or 50MiB".to_owned())
}

/// A length of time, such as `5s` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] =
            [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let ms = self.0.as_millis();
        let whole = UNITS.iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
        match whole {
            Some((unit, name)) => write!(f, "{}{name}", ms / unit),
            None if ms == 0 => f.write_str("0s"),
            None => write!(f, "{ms}ms"),
        }
    }
}

/// A number of bytes, such as `50MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub NonZeroU64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let bytes = self.0.get();
        match UNITS.iter().find(|(unit, _)| bytes.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", bytes / unit),
            None => write!(f, "{bytes}"),
        }
    }
}

/// Makes a type one that is written as text.
macro_rules! as_text {
    ($name:ident, $parse:expr, $format:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(D::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

as_text!(Period, parse_duration, "time");
as_text!(Bytes, parse_bytes, "bytes");

/// A value that is shown nowhere: as it is written, `${NAME}` of the environment, or `file:PATH`, of which
/// the first line counts.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What it is, if that is written here.
    #[must_use]
    pub(super) fn literal(&self) -> Option<&str> {
        let is_elsewhere = self.0.starts_with("file:") || self.0.starts_with("${");
        (!is_elsewhere).then_some(&*self.0)
    }

    /// What it is. `env` reads a variable of the environment.
    ///
    /// # Errors
    /// The variable or the file is not there; without any of what is in them.
    pub fn reveal(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        if let Some(name) = self.0.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            return env(name).ok_or_else(|| format!("the environment has no variable {name}"));
        }
        let Some(path) = self.0.strip_prefix("file:") else { return Ok(self.0.clone()) };
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret" })
    }
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
    fn times_are_shown_as_they_are_written() {
        for text in ["5s", "90s", "7d", "36h", "250ms", "0s", "1m"] {
            assert_eq!(Period(parse_duration(text).unwrap()).to_string(), text);
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

    #[test]
    fn bytes_with_units() {
        let parsed = |text| parse_bytes(text).ok().map(NonZeroU64::get);
        assert_eq!(parsed("1000"), Some(1000));
        assert_eq!(parsed("50MiB"), Some(50 << 20));
        assert_eq!(parsed("5 KB"), Some(5000));
        for bad in ["", "0", "MiB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        assert_eq!(Bytes(parse_bytes("2048MiB").unwrap()).to_string(), "2GiB");
        assert_eq!(Bytes(parse_bytes("1000").unwrap()).to_string(), "1000");
    }

    #[test]
    fn secrets_come_from_elsewhere_and_are_not_shown() {
        let env = |name: &str| (name == "TOKEN").then(|| "canary".to_owned());
        let secret = |text: &str| Secret(text.to_owned());
        assert_eq!(secret("${TOKEN}").reveal(&env).as_deref(), Ok("canary"));
        assert_eq!(secret("$x").reveal(&env).as_deref(), Ok("$x"));
        let missing = secret("${OTHER}").reveal(&env).unwrap_err();
        assert_eq!(missing, "the environment has no variable OTHER");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "canary\n").unwrap();
        let file = secret(&format!("file:{}", path.display()));
        assert_eq!(file.reveal(&env).as_deref(), Ok("canary"));
        std::fs::remove_file(&path).unwrap();
        assert!(file.reveal(&env).unwrap_err().contains("No such file"));
        assert_eq!(format!("{:?}", secret("canary")), "Secret(…)");
    }
}
