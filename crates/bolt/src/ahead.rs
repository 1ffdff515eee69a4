//! Which pages a walk reads at once, and which it will read next.
//!
//! A branch names its children, so a walk knows what comes until the branch ends; the next branches
//! are looked into before that, and the medium is told. Nothing depends on the forecast: what is
//! irregular ends it, and the walk itself finds out what is wrong.

use crate::db::Db;
use crate::format::{PageId, page};
use crate::page::{Bounds, Branch, Header};
use crate::source::{Piece, ReadAt};
use std::collections::VecDeque;

/// Bytes that are read at once for several pages, about; small enough to stay in a core's cache.
pub(crate) const BATCH: usize = 128 << 10;
/// Bytes between two wanted pages that are cheaper to read than to skip.
const GAP: u64 = 32 << 10;
/// Batches that are told before they are read.
const TOLD: usize = 3;

/// Neighbouring children of a branch that are read at once.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where they lie: the first piece begins with the first of them.
    pub pieces: Vec<Piece>,
    /// The first child behind them.
    next: usize,
}

impl Batch {
    /// The children from `index` on. How far one reaches shows only in its header: up to the next
    /// where that is close behind, else it is taken for `usual` bytes.
    fn of<S: ReadAt>(db: &Db<S>, branch: &Branch, index: usize, usual: usize) -> Self {
        let page_size = db.page_size();
        let in_file = db.pages().saturating_mul(page_size as u64);
        let usual = (usual as u64).clamp(page_size as u64, GAP.max(page_size as u64));
        let mut batch = Self { pieces: Vec::new(), next: index };
        let mut bytes = 0;
        let mut here = branch.child(index).map(|child| db.place(child).offset);
        while let Some(offset) = here.filter(|offset| bytes < BATCH && *offset < in_file) {
            batch.next += 1;
            here = branch.child(batch.next).map(|child| db.place(child).offset);
            let close = here.filter(|next| (1..=GAP).contains(&next.saturating_sub(offset)));
            let end = close.unwrap_or(offset.saturating_add(usual)).min(in_file);
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
            bytes += len;
            match batch.pieces.last_mut() {
                Some(last) if last.end() == offset => last.len += len,
                _ => batch.pieces.push(Piece { offset, len }),
            }
        }
        batch
    }

    fn starts_at(&self, offset: u64) -> bool {
        self.pieces.first().is_some_and(|first| first.offset == offset)
    }
}

/// The forecast of one walk.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The way down to the next batch: branches, and the child that comes next in each. None at the
    /// end; not known before the first leaf, and where the walk went another way.
    branches: Option<Vec<(Branch, usize)>>,
    /// How many branches are above a leaf; none until the first leaf was met.
    depth: Option<usize>,
    /// Batches that were told and are not read yet.
    told: VecDeque<Batch>,
    /// The child behind those that were read last, of the branch above them.
    behind: Option<usize>,
    /// Bytes of the leaf that was met last.
    usual: usize,
}

impl Ahead {
    /// Whether leaves lie below so many branches.
    pub(crate) fn reaches(&self, depth: usize) -> bool {
        self.depth == Some(depth)
    }

    /// Where the leaves lie that are read at once with child `index` of `branch`, at `offset`: the
    /// batch that was told, or another, with which a new forecast begins.
    pub(crate) fn batch<S: ReadAt>(
        &mut self,
        db: &Db<S>,
        branch: &Branch,
        index: usize,
        offset: u64,
    ) -> Vec<Piece> {
        let told = self.told.pop_front().filter(|told| told.starts_at(offset));
        let batch = told.unwrap_or_else(|| {
            self.told.clear();
            self.branches = None;
            Batch::of(db, branch, index, self.usual)
        });
        self.behind = Some(batch.next);
        batch.pieces
    }

    /// A leaf was met with so many bytes.
    pub(crate) fn met(&mut self, bytes: usize) {
        self.usual = bytes;
    }

    /// Tells the medium what comes behind what was read last. `way` leads down to the leaf that was
    /// met, with the next child of each branch.
    pub(crate) fn look<'b, S: ReadAt>(
        &mut self,
        db: &Db<S>,
        way: impl ExactSizeIterator<Item = (&'b Branch, usize)>,
    ) {
        let depth = way.len();
        let behind = self.behind.take();
        if self.branches.is_none() || self.depth != Some(depth) {
            self.depth = Some(depth);
            self.told.clear();
            let mut branches: Vec<_> = way.map(|(branch, next)| (branch.clone(), next)).collect();
            if let Some(((_, next), behind)) = branches.last_mut().zip(behind) {
                *next = behind;
            }
            self.branches = Some(branches);
        }
        while self.told.len() < TOLD {
            let Some(batch) = self.next(db) else {
                break;
            };
            db.source().will_read(&batch.pieces);
            self.told.push_back(batch);
        }
    }

    fn next<S: ReadAt>(&mut self, db: &Db<S>) -> Option<Batch> {
        let branches = self.branches.as_mut()?;
        loop {
            let depth = branches.len();
            let (branch, next) = branches.last_mut()?;
            if *next >= branch.count() {
                branches.pop();
            } else if Some(depth) == self.depth {
                let batch = Batch::of(db, branch, *next, self.usual);
                *next = batch.next;
                return (!batch.pieces.is_empty()).then_some(batch);
            } else {
                let child = branch.child(*next)?;
                *next += 1;
                branches.push((read_branch(db, child)?, 0));
            }
        }
    }
}

/// A branch page, where it is one; those that overflow are left to the walk.
fn read_branch<S: ReadAt>(db: &Db<S>, id: PageId) -> Option<Branch> {
    let place = db.place(id);
    let mut bytes = vec![0; db.page_size()];
    db.source().read_exact_at(&mut bytes, place.offset).ok()?;
    let header = Header::parse(&bytes)?;
    let plain = header.flags == page::FLAG_BRANCH && header.overflow == 0;
    plain.then(|| Branch::parse(&bytes, place, Bounds::default()).ok())?
}
