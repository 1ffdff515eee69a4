//! What a base goes on using of an older one, and where its records go.

use crate::format::base::Part;
use rekindle_etcd::{RecordKey, Revision};

/// A part of which more than this share is dead is written anew: so a restore reads at most about
/// twice what lives.
const DEAD_SHARE_MAX: f64 = 0.5;
/// A part with fewer living bytes is small.
const SMALL: u64 = 1 << 20;
/// So many small neighbours become one: each costs a request of a restore.
const SMALL_MAX: usize = 16;
/// Of the living bytes at most a tenth is written anew by one base,
const REWRITTEN_SHARE: u64 = 10;
/// or so many bytes.
const REWRITTEN_MIN: u64 = 4 << 20;

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// Nowhere: the archive has them.
    Known,
    /// Into packs.
    Pack,
    /// Into the log: they are all records of their revisions.
    Log,
}

/// Where the records up to a certain one go; they come behind those of the route before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The last one; none where all that follow go there.
    pub last: Option<RecordKey>,
    pub to: To,
}

/// An older base, as far as the next one needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct Older {
    pub parts: Vec<Part>,
    /// Its revision.
    pub revision: Revision,
}

/// The routes of a base's records. `compact` is the compact revision of its snapshot; what came behind the older
/// base goes to `rest`.
pub(crate) fn routes(older: Option<&Older>, compact: Option<Revision>, rest: To) -> Vec<Route> {
    let Some(older) = older else { return vec![Route { last: None, to: To::Pack }] };
    let mut routes = Vec::new();
    for (part, rewritten) in older.parts.iter().zip(rewritten(&older.parts)) {
        push(&mut routes, part.last, if rewritten { To::Pack } else { To::Known });
    }
    let head = last_of(older.revision);
    push(&mut routes, head, To::Known);
    // Of what was compacted since then only some is there: that is no part of a log.
    if let Some(compact) = compact.filter(|compact| *compact > older.revision) {
        push(&mut routes, last_of(compact), To::Pack);
    }
    match routes.last_mut() {
        Some(route) if route.to == rest => route.last = None,
        _ => routes.push(Route { last: None, to: rest }),
    }
    routes
}

fn push(routes: &mut Vec<Route>, last: RecordKey, to: To) {
    match routes.last_mut() {
        Some(route) if route.to == to => route.last = Some(last),
        _ => routes.push(Route { last: Some(last), to }),
    }
}

/// Behind every record of a revision.
fn last_of(revision: Revision) -> RecordKey {
    RecordKey { revision, sub: i64::MAX, tombstone: true }
}

/// Which parts are written anew.
pub(crate) fn rewritten(parts: &[Part]) -> Vec<bool> {
    let all: u64 = parts.iter().map(living_bytes).sum();
    let mut budget = (all / REWRITTEN_SHARE).max(REWRITTEN_MIN);
    let mut rewritten = vec![false; parts.len()];
    let mut choose = |number: usize| {
        let (Some(part), Some(chosen)) = (parts.get(number), rewritten.get_mut(number)) else {
            return;
        };
        if let Some(left) = budget.checked_sub(living_bytes(part)).filter(|_| !*chosen) {
            (budget, *chosen) = (left, true);
        }
    };
    let mut dead: Vec<_> = (0..parts.len()).collect();
    dead.retain(|number| parts.get(*number).is_some_and(|part| dead_share(part) > DEAD_SHARE_MAX));
    let share = |number: &usize| parts.get(*number).map_or(0.0, dead_share);
    dead.sort_by(|one, other| share(other).total_cmp(&share(one)));
    dead.into_iter().for_each(&mut choose);
    for neighbours in small_neighbours(parts).filter(|found| found.len() >= SMALL_MAX) {
        neighbours.for_each(&mut choose);
    }
    rewritten
}

/// Neighbours of which each is small, by their places.
fn small_neighbours(parts: &[Part]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let is_small = |part: &Part| living_bytes(part) < SMALL;
    let mut start = 0;
    let runs = parts.chunk_by(move |one, next| is_small(one) == is_small(next));
    runs.filter_map(move |run| {
        let range = start..start + run.len();
        start = range.end;
        run.first().is_some_and(is_small).then_some(range)
    })
}

fn dead_share(part: &Part) -> f64 {
    part.dead.len() as f64 / part.records.max(1) as f64
}

/// About so many bytes of it live.
fn living_bytes(part: &Part) -> u64 {
    let product = u128::from(part.bytes) * u128::from(part.living());
    u64::try_from(product / u128::from(part.records.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::base::PartKind;
    use crate::format::{ObjectId, TimelineId};

    const MIB: u64 = 1 << 20;

    /// A part of a hundred revisions with a record each, so many of them dead.
    fn a_part(number: i64, bytes: u64, dead: u32) -> Part {
        let at = |revision| RecordKey::first_of(Revision::new(revision).unwrap());
        let what =
            PartKind::Pack { id: ObjectId([0; 16]), body_digest: [0; 32], index_digest: [0; 32] };
        Part {
            timeline: TimelineId([0; 16]),
            first: at(number * 100 + 1),
            last: at(number * 100 + 100),
            records: 100,
            bytes,
            dead: (0..dead).collect(),
            what,
        }
    }

    fn parts(of: &[(u64, u32)]) -> Vec<Part> {
        of.iter().zip(0..).map(|((bytes, dead), n)| a_part(n, *bytes, *dead)).collect()
    }

    fn check_rewritten(of: &[(u64, u32)], want: &[usize]) {
        let rewritten = rewritten(&parts(of));
        let got: Vec<_> = (0..of.len()).filter(|number| rewritten[*number]).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn what_is_mostly_dead_is_written_anew() {
        check_rewritten(&[], &[]);
        check_rewritten(&[(16 * MIB, 0), (16 * MIB, 50), (16 * MIB, 51)], &[]);
        // 7.8 of 170 MiB.
        let mut many = [(16 * MIB, 0); 12];
        many[3].1 = 51;
        check_rewritten(&many, &[3]);
        // The worst first, and no more than a tenth: 15.8 MiB would be two of them.
        many[7].1 = 90;
        many[8].1 = 55;
        check_rewritten(&many, &[7, 8]);
        check_rewritten(&[(4 * MIB, 60), (4 * MIB, 0)], &[0]);
        check_rewritten(&[(4 * MIB, 100), (4 * MIB, 0)], &[0]);
    }

    #[test]
    fn many_small_neighbours_become_one() {
        let mut small = vec![(16 * MIB, 0)];
        small.extend([(MIB / 10, 0); SMALL_MAX - 1]);
        check_rewritten(&small, &[]);
        small.push((MIB / 10, 10));
        check_rewritten(&small, &(1..=SMALL_MAX).collect::<Vec<_>>());
        small[5].0 = 2 * MIB;
        check_rewritten(&small, &[]);
    }

    fn check_routes(older: &[(u64, u32)], revision: i64, compact: i64, want: &str) {
        let revision = Revision::new(revision).unwrap();
        let older = Older { parts: parts(older), revision };
        let shown = |route: Route| match route.last {
            Some(last) => format!("{:?} to {}", route.to, last.revision),
            None => format!("{:?}", route.to),
        };
        let routes = routes(Some(&older), Revision::new(compact), To::Log);
        assert_eq!(routes.into_iter().map(shown).collect::<Vec<_>>().join(", "), want);
    }

    #[test]
    fn records_go_where_they_belong() {
        let first = [Route { last: None, to: To::Pack }];
        assert_eq!(routes(None, Revision::new(7), To::Log), first);
        let parts = [(9 * MIB, 0), (9 * MIB, 0)];
        check_routes(&parts, 200, -1, "Known to 200, Log");
        check_routes(&parts, 205, 150, "Known to 205, Log");
        check_routes(&parts, 205, 205, "Known to 205, Log");
        check_routes(&parts, 205, 206, "Known to 205, Pack to 206, Log");
        let dead = [(9 * MIB, 80), (9 * MIB, 0), (9 * MIB, 70)];
        check_routes(&dead, 300, 90, "Pack to 100, Known to 300, Log");
        check_routes(
            &[(MIB, 0), (MIB, 99)],
            200,
            90,
            "Known to 100, Pack to 200, Known to 200, Log",
        );
    }
}
