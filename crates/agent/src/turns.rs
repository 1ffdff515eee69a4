//! Who does the job of a slot, among agents that share an archive.
//!
//! Whoever creates the claim of an attempt first does it. It ends with a record. A claim without a record for long
//! is of somebody who is gone, and the next attempt is anybody's. Where two do the same, because a clock or a
//! store lies, there is one backup more than needed, and nothing else.

use crate::records::Outcome;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Attempts at a slot that fail for another reason than that something is away now.
const ATTEMPTS_MAX: u32 = 4;
/// How long is waited after a failure, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What is known of the attempts at a slot, by their numbers from 1 on.
pub type Attempts = BTreeMap<u32, Attempt>;

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose it is.
    pub agent: String,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// How it ended, and when.
    pub ended: Option<(Outcome, Timestamp)>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This attempt is to be claimed and made.
    Make(u32),
    /// Nothing before that moment.
    Wait(Timestamp),
    /// The slot is done, or given up.
    Over,
}

/// Decides. `patience` is how long a claim without a record is believed.
#[must_use]
pub fn turn(attempts: &Attempts, me: &str, now: Timestamp, patience: Duration) -> Turn {
    let Some((number, last)) = attempts.last_key_value() else { return Turn::Make(1) };
    let next = number.saturating_add(1);
    let at = match last.ended {
        Some((Outcome::Done | Outcome::Refused, _)) => return Turn::Over,
        Some((Outcome::Failed, _)) if *number >= ATTEMPTS_MAX => return Turn::Over,
        // Nothing was wrong with it.
        Some((Outcome::Interrupted, _)) => return Turn::Make(next),
        Some((Outcome::Failed | Outcome::Away, ended)) => {
            let doubled = RETRY_MIN.saturating_mul(1 << (number - 1).min(16));
            later(ended, doubled.min(RETRY_MAX))
        }
        // It was this one, which has ended without a record since.
        None if last.agent == me => return Turn::Make(next),
        None => later(last.claimed, patience),
    };
    if at <= now { Turn::Make(next) } else { Turn::Wait(at) }
}

fn later(at: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    at.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn what(attempts: &[(&str, Option<Outcome>)], now: i64) -> Turn {
        let attempt = |(agent, outcome): &(&str, Option<Outcome>)| Attempt {
            agent: (*agent).to_owned(),
            claimed: at(0),
            ended: outcome.map(|outcome| (outcome, at(100))),
        };
        let attempts = (1..).zip(attempts.iter().map(attempt)).collect();
        turn(&attempts, "me", at(now), PATIENCE)
    }

    #[test]
    fn one_does_it_and_who_dies_is_followed() {
        assert_eq!(what(&[], 0), Turn::Make(1));
        assert_eq!(what(&[("other", None)], 0), Turn::Wait(at(3600)));
        assert_eq!(what(&[("other", None)], 3600), Turn::Make(2));
        assert_eq!(what(&[("me", None)], 1), Turn::Make(2), "this one died, and is back");
        assert_eq!(what(&[("other", Some(Outcome::Done))], 100), Turn::Over);
        assert_eq!(what(&[("me", Some(Outcome::Interrupted))], 100), Turn::Make(2));
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let failed = ("other", Some(Outcome::Failed));
        assert_eq!(what(&[failed], 100), Turn::Wait(at(110)));
        assert_eq!(what(&[failed], 110), Turn::Make(2));
        assert_eq!(what(&[failed; 2], 110), Turn::Wait(at(120)));
        assert_eq!(what(&[failed; 4], 9999), Turn::Over);
        // What is away now may be back at any time.
        let away = ("other", Some(Outcome::Away));
        assert_eq!(what(&[away; 20], 100), Turn::Wait(at(700)));
        assert_eq!(what(&[away; 20], 700), Turn::Make(21));
        // What makes no sense now makes none in a minute.
        assert_eq!(what(&[("other", Some(Outcome::Refused))], 100), Turn::Over);
    }
}
