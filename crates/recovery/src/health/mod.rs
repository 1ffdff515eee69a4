//! How a cluster is: what its members say, what that means, and for how long it goes on.

mod history;
mod judge;
mod observe;

pub use history::{Fate, History, Streak, Thresholds};
pub use judge::{Finding, Health, Severity, Verdict, judge};
pub use observe::{Observed, ObservedMember, Seen, observe};
