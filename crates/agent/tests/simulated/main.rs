//! The capture machine against a cluster that fails, lies and goes back, archives that come and go, and
//! kills, in time of its own. Whatever an archive was told to have, it has, of one history and without
//! a hole; and once nothing fails any more, it has everything.
//!
//! `REKINDLE_SEEDS` says how many worlds are tried; a seed that fails is named, and
//! `REKINDLE_SEED=N` tries that one alone.

mod chance;
mod cluster;
mod world;

use chance::Chance;
use world::World;

/// Worlds that are tried without being told.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn an_archive_has_what_it_was_told_to_have() {
    let seeds = match number("REKINDLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REKINDLE_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = world::Seen::default();
    for seed in seeds.clone() {
        let mut world = World::new(Chance::of(seed));
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live()));
        if let Err(fault) = lived {
            eprintln!("REKINDLE_SEED={seed}");
            std::panic::resume_unwind(fault);
        }
        seen.add(&world.seen);
    }
    if seeds.end - seeds.start >= SEEDS {
        seen.check();
    }
}
