//! The checker: all that is wrong with a file, not only the first thing.
//!
//! It demands what bbolt's own checker demands (`tx_check.go`): each page referenced once, none in
//! use that is free, none lost, pages of the right kind, keys in order and between their
//! separators. Beyond that it checks both metas, the file's length, every element's bounds, empty
//! keys and pages, inline buckets, the freelist's order, and that trees are no cycles.
//!
//! What is handed to a [`Visit`] comes only out of pages that passed.

use crate::db::{Bucket, Db};
use crate::error::{Damage, Error, Reason};
use crate::format::{self, PageId, page};
use crate::page::{Header, Leaf, Pair, u64_at};
use crate::pageset::PageSet;
use crate::scan::Scan;
use crate::source::ReadAt;
use std::convert::Infallible;

/// Findings that are kept; those beyond are only counted.
const FINDINGS_MAX: usize = 1000;
/// Entries of the freelist that are read at once.
const FREELIST_CHUNK: usize = 8192;

/// Is shown the content of the named buckets while they are checked, in the order of the file's
/// keys, and may end the check at any point.
pub trait Visit {
    /// Why it ends the check; [`Infallible`] where it never does.
    type Stop;

    /// The pairs that follow are of this bucket.
    ///
    /// # Errors
    /// Ends the check.
    fn bucket(&mut self, name: &[u8]) -> Result<(), Self::Stop>;

    /// The next pair of the bucket.
    ///
    /// # Errors
    /// Ends the check.
    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Self::Stop>;

    /// Something is wrong; the check goes on behind it.
    ///
    /// # Errors
    /// Ends the check.
    fn damage(&mut self, _: Part, _: &Damage) -> Result<(), Self::Stop> {
        Ok(())
    }
}

/// What damage takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Keys and values.
    Content,
    /// Only what bbolt keeps beside them: the other meta, the freelist, the file's length. All
    /// keys and values were read; a file written anew from them is sound.
    Bookkeeping,
}

/// Sees nothing.
impl Visit for () {
    type Stop = Infallible;

    fn bucket(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn pair(&mut self, _: Pair<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Why a check did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt<Stop> {
    /// The medium failed: always [`Error::Read`].
    Read(Error),
    /// The [`Visit`] ended it.
    Stopped(Stop),
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in the order in which it was met; at most 1,000 are kept.
    pub findings: Vec<Damage>,
    /// How many findings there were in all.
    pub findings_total: u64,
    /// How many of them have cost keys or values.
    pub content_damage: u64,
    /// What the pages are used for.
    pub usage: Usage,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings_total == 0
    }
}

/// Pages of a file by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes a page.
    pub page_size: u64,
    /// Pages below the high-water mark.
    pub total: u64,
    /// Metas, freelist and all that is reachable.
    pub in_use: u64,
}

impl Usage {
    /// Logical size of the file in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total.saturating_mul(self.page_size)
    }

    /// Bytes in pages that are in use.
    #[must_use]
    pub fn in_use_bytes(&self) -> u64 {
        self.in_use.saturating_mul(self.page_size)
    }

    /// Bytes in pages that hold nothing: what a defragmentation would give back at the least.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.total.saturating_sub(self.in_use).saturating_mul(self.page_size)
    }
}

/// Checks a whole file and shows its content to `visit` on the way.
///
/// # Errors
/// What is wrong with the file goes into the report and is no error.
pub fn check<S: ReadAt, V: Visit>(db: &Db<S>, visit: &mut V) -> Result<Report, Halt<V::Stop>> {
    let usage =
        Usage { page_size: db.page_size() as u64, total: db.meta().high_water.0, in_use: 0 };
    let mut check = Check {
        db,
        visit,
        reached: PageSet::for_pages(db.pages()),
        report: Report { findings: Vec::new(), findings_total: 0, content_damage: 0, usage },
        part: Part::Bookkeeping,
    };
    for damage in db.damage() {
        check.find(damage.clone())?;
    }
    check.part = Part::Content;
    check.named_buckets()?;
    check.part = Part::Bookkeeping;
    check.freelist()?;
    let in_use = check.reached.count().saturating_add(format::FIRST_DATA_PAGE.0);
    check.report.usage.in_use = in_use.min(usage.total);
    Ok(check.report)
}

struct Check<'a, S, V> {
    db: &'a Db<S>,
    visit: &'a mut V,
    reached: PageSet,
    report: Report,
    /// What findings are about now.
    part: Part,
}

type Checked<V> = Result<(), Halt<<V as Visit>::Stop>>;

impl<S: ReadAt, V: Visit> Check<'_, S, V> {
    fn find(&mut self, damage: Damage) -> Checked<V> {
        self.report.findings_total += 1;
        self.report.content_damage += u64::from(self.part == Part::Content);
        self.visit.damage(self.part, &damage).map_err(Halt::Stopped)?;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(damage);
        }
        Ok(())
    }

    /// Keeps damage as a finding and lets the medium's errors through.
    fn keep(&mut self, error: Error) -> Checked<V> {
        match error {
            Error::Damaged(damage) => self.find(damage),
            other => Err(Halt::Read(other)),
        }
    }

    fn named_buckets(&mut self) -> Checked<V> {
        let root = self.db.root();
        self.leaves(&root, |check, leaf| {
            for (index, pair) in leaf.pairs().enumerate() {
                let Some(bucket) = Bucket::of(&pair, &leaf) else {
                    check.find(leaf.place().damage(Reason::PlainValueInRoot { index }))?;
                    continue;
                };
                check.visit.bucket(pair.key).map_err(Halt::Stopped)?;
                check.bucket(&bucket, 1)?;
            }
            Ok(())
        })
    }

    /// `nesting` is 1 for a named bucket, whose pairs are shown, and more for those inside it.
    fn bucket(&mut self, bucket: &Bucket, nesting: usize) -> Checked<V> {
        self.leaves(bucket, |check, leaf| {
            for pair in leaf.pairs() {
                if nesting == 1 {
                    check.visit.pair(pair).map_err(Halt::Stopped)?;
                }
                let Some(inner) = Bucket::of(&pair, &leaf) else {
                    continue;
                };
                if nesting >= format::NESTING_MAX {
                    let max = format::NESTING_MAX;
                    check.find(leaf.place().damage(Reason::NestedTooDeep { max }))?;
                } else {
                    check.bucket(&inner, nesting + 1)?;
                }
            }
            Ok(())
        })
    }

    /// Calls `each` for every leaf of a bucket that can be read.
    fn leaves(
        &mut self,
        bucket: &Bucket,
        mut each: impl FnMut(&mut Self, Leaf<'_>) -> Checked<V>,
    ) -> Checked<V> {
        let mut scan = Scan::uncounted(self.db, bucket);
        loop {
            let mut reached = std::mem::take(&mut self.reached);
            let next = scan.next_leaf_reaching(&mut reached);
            self.reached = reached;
            match next {
                Ok(Some(leaf)) => each(self, leaf)?,
                Ok(None) => return Ok(()),
                Err(error) => self.keep(error)?,
            }
        }
    }

    /// A stored freelist and the pages in use must be all pages, and share none.
    fn freelist(&mut self) -> Checked<V> {
        let db = self.db;
        let Some(id) = db.meta().freelist else {
            return Ok(());
        };
        let stored = match StoredFreelist::open(db, id) {
            Ok(stored) => stored,
            Err(error) => return self.keep(error),
        };
        for page in stored.pages() {
            if !self.reached.insert(page) {
                self.find(db.place(page).damage(Reason::ReachedTwice))?;
            }
        }
        let mut free = PageSet::for_pages(db.pages());
        self.free_ids(&stored, &mut free)?;
        for page in (format::FIRST_DATA_PAGE.0..db.pages()).map(PageId) {
            match (self.reached.contains(page), free.contains(page)) {
                (true, true) => self.find(db.place(page).damage(Reason::ReachedButFree))?,
                (false, false) => self.find(db.place(page).damage(Reason::Lost))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn free_ids(&mut self, stored: &StoredFreelist, free: &mut PageSet) -> Checked<V> {
        let high_water = self.db.pages();
        let mut previous = 0;
        let mut chunk = Vec::new();
        for first in (0..stored.count).step_by(FREELIST_CHUNK) {
            stored.read(self.db, first, &mut chunk).map_err(Halt::Read)?;
            for (index, entry) in (first..).zip(chunk.chunks_exact(ENTRY)) {
                let got = u64_at(entry, 0).unwrap_or(0);
                let damage = |reason| Damage::new(stored.page, stored.offset_of(index), reason);
                if got < format::FIRST_DATA_PAGE.0 || got >= high_water {
                    self.find(damage(Reason::PageOutside { got, high_water }))?;
                } else if got <= previous || !free.insert(PageId(got)) {
                    self.find(damage(Reason::FreelistOrder { index, got }))?;
                }
                previous = previous.max(got);
            }
        }
        Ok(())
    }
}

/// Bytes of one entry of the freelist.
const ENTRY: usize = 8;

/// A freelist page whose header was checked.
struct StoredFreelist {
    page: PageId,
    /// The last page that it goes on over.
    last: PageId,
    /// Byte offset of the first entry in the file.
    start: u64,
    /// Entries.
    count: u64,
}

impl StoredFreelist {
    fn open<S: ReadAt>(db: &Db<S>, id: PageId) -> Result<Self, Error> {
        let (place, high_water) = (db.place(id), db.pages());
        if id < format::FIRST_DATA_PAGE || id.0 >= high_water {
            return Err(place.damage(Reason::PageOutside { got: id.0, high_water }).into());
        }
        let mut head = [0; page::SIZE + ENTRY];
        read(db, &mut head, place.offset)?;
        let Some(header) = Header::parse(&head) else {
            let (have, want) = (head.len() as u64, page::SIZE as u64);
            return Err(place.damage(Reason::FileEnds { have, want }).into());
        };
        if header.id != id.0 {
            return Err(place.damage(Reason::PageId { got: header.id }).into());
        }
        if header.flags != page::FLAG_FREELIST {
            let (got, want) = (header.flags, "freelist (0x0010)");
            return Err(place.damage(Reason::PageKind { got, want }).into());
        }
        let overflow = header.overflow;
        let last = PageId(id.0.saturating_add(u64::from(overflow)));
        if last.0 >= high_water {
            return Err(place.damage(Reason::Overflow { overflow, high_water }).into());
        }
        // A count too large for the header stands in the first entry (bbolt `page.go`,
        // FreelistPageCount).
        let (skip, count) = match header.count {
            format::ELEMENTS_MAX => (ENTRY, u64_at(&head, page::SIZE).unwrap_or(0)),
            count => (0, count as u64),
        };
        let skip = (page::SIZE + skip) as u64;
        let pages = u64::from(overflow).saturating_add(1);
        let room = pages.saturating_mul(db.page_size() as u64).saturating_sub(skip);
        if count > room / ENTRY as u64 {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            return Err(place.damage(Reason::Elements { count, room }).into());
        }
        Ok(Self { page: id, last, start: place.offset.saturating_add(skip), count })
    }

    fn pages(&self) -> impl Iterator<Item = PageId> + use<> {
        (self.page.0..=self.last.0).map(PageId)
    }

    fn offset_of(&self, index: u64) -> u64 {
        self.start.saturating_add(index.saturating_mul(ENTRY as u64))
    }

    /// Reads the entries from `first` on, a chunk of them at most.
    fn read<S: ReadAt>(&self, db: &Db<S>, first: u64, chunk: &mut Vec<u8>) -> Result<(), Error> {
        let left = usize::try_from(self.count.saturating_sub(first)).unwrap_or(usize::MAX);
        chunk.resize(left.min(FREELIST_CHUNK) * ENTRY, 0);
        read(db, chunk, self.offset_of(first))
    }
}

fn read<S: ReadAt>(db: &Db<S>, buf: &mut [u8], offset: u64) -> Result<(), Error> {
    let len = buf.len();
    db.source().read_exact_at(buf, offset).map_err(|error| Error::read(&error, offset, len))
}
