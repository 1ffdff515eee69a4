//! What an agent costs that has nothing to do: it sits on a control-plane node.
//!
//! Memory is looked at always. With `REKINDLE_IDLE=N` (as `cargo xtask soak --agent` sets it) so is what it takes of a core
//! in N seconds.

use crate::harness::{Guarding, Place};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use std::time::{Duration, Instant};

/// Most anonymous memory of the agent and its processes.
const MEMORY_MAX: u64 = 64 << 20;
/// Most of a core.
const CORE_MAX: f64 = 0.005;

#[test]
fn an_idle_agent_costs_little() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let fields = "  archives:
  - {place: HERE/archive, prune: {}, verify: {}}
  snapshots:
  - {name: daily, schedule: '@daily', to: [HERE/etcd-%Y.db]}
";
    let mut agent = Guarding::start(&place.configure("agent", &cluster, "", fields));
    let address = agent.address();
    agent.wait_for("writing into");
    Guarding::wait_for_metric(&address, "rekindle_archive_revision{");
    if let Some(seconds) = std::env::var("REKINDLE_IDLE").ok().and_then(|text| text.parse().ok()) {
        let (before, began) = (agent.processor(), Instant::now());
        agent.listen_for(Duration::from_secs(seconds));
        let core = (agent.processor() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        println!("idle: {:.2} % of a core, {} KiB", core * 100.0, agent.memory() >> 10);
        assert!(core <= CORE_MAX, "{core}");
    }
    assert!(agent.memory() <= MEMORY_MAX, "{}", agent.memory());
    agent.stop();
}
