//! A limit on bytes a second.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Bytes may pass at this rate, whichever way they go and however many wait for it.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: NonZeroU64,
    /// When the next ones may.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU64) -> Self {
        Self { per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may pass.
    pub(super) async fn pass(&self, bytes: usize) {
        let begins = self.reserve(bytes, Instant::now());
        sleep_until(begins).await;
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.per_second.get() as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = (*free_at).max(now);
        *free_at = begins + takes;
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_rate_and_idle_time_is_lost() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.reserve(500, after(10)), after(10));
        assert_eq!(pace.reserve(500, after(10)), after(510));
        assert_eq!(pace.reserve(1, after(5000)), after(5000));
    }
}
