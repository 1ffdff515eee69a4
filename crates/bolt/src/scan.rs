//! One bucket in key order, leaf by leaf.
//!
//! Pages are read ahead exactly: a branch page names its children, so those that lie close together
//! come with one read, and the medium is told which come next. Memory is one window and two branch
//! pages a level of the tree.
//!
//! A scan hands nothing out of a page before the whole page was checked, follows no page twice, and
//! after an error goes on behind the damaged page when asked for the next leaf.

use crate::ahead::{Ahead, BATCH};
use crate::db::{Bucket, Db, Root};
use crate::error::{Damage, Error, Reason};
use crate::format::{self, PageId, page};
use crate::page::{Bounds, Branch, Header, Leaf, Place};
use crate::pageset::PageSet;
use crate::source::{Piece, ReadAt};
use std::ops::RangeInclusive;

/// A walk over one bucket.
#[derive(Debug)]
pub struct Scan<'a, S> {
    db: &'a Db<S>,
    bucket: &'a Bucket,
    aim: Aim<'a>,
    began: bool,
    stack: Vec<Frame>,
    window: Window,
    ahead: Ahead,
    reached: PageSet,
}

/// Where a descent goes: the first one as asked for, each later one to the first leaf.
#[derive(Clone, Copy, Debug)]
enum Aim<'a> {
    First,
    Key(&'a [u8]),
    Last,
}

/// A branch page on the way down, and the child that comes next.
#[derive(Debug)]
struct Frame {
    branch: Branch,
    place: Place,
    next: usize,
}

/// A leaf that was found in the window, by place.
struct Found {
    place: Place,
    bytes: usize,
    count: usize,
}

impl<'a, S: ReadAt> Scan<'a, S> {
    /// All leaves of a bucket.
    #[must_use]
    pub fn new(db: &'a Db<S>, bucket: &'a Bucket) -> Self {
        Self::with(db, bucket, Aim::First, PageSet::for_pages(db.pages()))
    }

    /// The leaves from the one on that would hold `key`; its first pairs may lie below `key`.
    #[must_use]
    pub fn starting_at(db: &'a Db<S>, bucket: &'a Bucket, key: &'a [u8]) -> Self {
        Self::with(db, bucket, Aim::Key(key), PageSet::for_pages(db.pages()))
    }

    /// The last leaf.
    #[must_use]
    pub(crate) fn at_the_end(db: &'a Db<S>, bucket: &'a Bucket) -> Self {
        Self::with(db, bucket, Aim::Last, PageSet::for_pages(db.pages()))
    }

    /// All leaves of a bucket, for a caller that keeps count of the pages itself.
    pub(crate) fn uncounted(db: &'a Db<S>, bucket: &'a Bucket) -> Self {
        Self::with(db, bucket, Aim::First, PageSet::default())
    }

    fn with(db: &'a Db<S>, bucket: &'a Bucket, aim: Aim<'a>, reached: PageSet) -> Self {
        let (stack, window, ahead) = (Vec::new(), Window::default(), Ahead::default());
        Self { db, bucket, aim, began: false, stack, window, ahead, reached }
    }

    /// The next leaf; `None` at the end. An empty bucket may yield one empty leaf.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the first thing wrong with a page; the next call goes on behind it.
    /// [`Error::Read`] is the medium's.
    pub fn next_leaf(&mut self) -> Result<Option<Leaf<'_>>, Error> {
        let mut reached = std::mem::take(&mut self.reached);
        let found = self.find(&mut reached);
        self.reached = reached;
        Ok(found?.and_then(|found| self.leaf(&found)))
    }

    /// The same with the caller's own count of the pages that were reached.
    pub(crate) fn next_leaf_reaching(
        &mut self,
        reached: &mut PageSet,
    ) -> Result<Option<Leaf<'_>>, Error> {
        let found = self.find(reached)?;
        Ok(found.and_then(|found| self.leaf(&found)))
    }

    fn leaf(&self, found: &Found) -> Option<Leaf<'_>> {
        let bytes = match &self.bucket.root {
            Root::Inline(bytes, _) => bytes,
            Root::Page(_) => self.window.get(found.place.offset, found.bytes)?,
        };
        Some(Leaf::trusted(bytes, found.count, found.place))
    }

    /// Goes down and along until a leaf is met.
    fn find(&mut self, reached: &mut PageSet) -> Result<Option<Found>, Error> {
        let began = std::mem::replace(&mut self.began, true);
        let found = match &self.bucket.root {
            Root::Inline(..) if began => Ok(None),
            Root::Inline(bytes, place) => inline_leaf(bytes, *place).map(Some),
            Root::Page(_) if began => self.advance(reached),
            Root::Page(root) => match self.enter(*root, None, reached) {
                Ok(None) => self.advance(reached),
                done => done,
            },
        };
        self.aim = Aim::First;
        found
    }

    fn advance(&mut self, reached: &mut PageSet) -> Result<Option<Found>, Error> {
        while let Some(frame) = self.stack.last_mut() {
            let index = frame.next;
            frame.next += 1;
            match frame.branch.child(index) {
                Some(child) => {
                    if let Some(found) = self.enter(child, Some(index), reached)? {
                        return Ok(Some(found));
                    }
                }
                None => drop(self.stack.pop()),
            }
        }
        Ok(None)
    }

    /// Reads a page: a leaf is handed up, a branch goes onto the stack. `index` is the page's place
    /// in the branch on top of the stack; the root has none.
    fn enter(
        &mut self,
        id: PageId,
        index: Option<usize>,
        reached: &mut PageSet,
    ) -> Result<Option<Found>, Error> {
        let place = self.db.place(id);
        let header = self.load(id, place, index, reached)?;
        let bytes = self.page_bytes(header);
        let page = self.window.get(place.offset, bytes).unwrap_or_default();
        let top = index.and_then(|index| Some((self.stack.last()?, index)));
        let bounds = Bounds {
            lower: top.and_then(|(frame, index)| frame.branch.key(index)),
            upper: self.stack.iter().rev().find_map(|frame| frame.branch.key(frame.next)),
        };
        if header.flags == page::FLAG_LEAF {
            let leaf = Leaf::parse(page, place, bounds)?;
            if leaf.is_empty() && index.is_some() {
                return Err(place.damage(Reason::EmptyLeaf).into());
            }
            return Ok(Some(Found { place, bytes, count: leaf.len() }));
        }
        let branch = Branch::parse(page, place, bounds)?;
        if self.stack.len() >= format::DEPTH_MAX {
            return Err(place.damage(Reason::TooDeep { max: format::DEPTH_MAX }).into());
        }
        let next = match self.aim {
            Aim::First => 0,
            Aim::Key(key) => branch.position(key),
            Aim::Last => branch.count().saturating_sub(1),
        };
        self.stack.push(Frame { branch, place, next });
        Ok(None)
    }

    /// Brings a page with its overflow into the window, and checks its header. A page that was
    /// reached before, sound or not, is not read again: a branch can name one a million times.
    fn load(
        &mut self,
        id: PageId,
        place: Place,
        index: Option<usize>,
        reached: &mut PageSet,
    ) -> Result<Header, Error> {
        self.check_id(id, place)?;
        self.count(id..=id, reached)?;
        let page_size = self.db.page_size();
        let missing = !self.window.seek(place.offset, page_size);
        if missing {
            self.fill(place, index)?;
        }
        let bytes = self.window.get(place.offset, page_size).unwrap_or_default();
        let header = Header::parse(bytes)
            .ok_or_else(|| place.damage(Reason::FileEnds { have: 0, want: page::SIZE as u64 }))?;
        self.check_header(id, place, header)?;
        self.count(PageId(id.0.saturating_add(1))..=last_page(id, header), reached)?;
        let whole = self.page_bytes(header);
        if !self.window.seek(place.offset, whole) {
            self.window.fill_apart(self.db.source(), Piece { offset: place.offset, len: whole })?;
        }
        if header.flags == page::FLAG_LEAF {
            self.ahead.met(whole);
            if missing && matches!(self.aim, Aim::First) {
                let way = self.stack.iter().map(|frame| (&frame.branch, frame.next));
                self.ahead.look(self.db, way);
            }
        }
        Ok(header)
    }

    /// Reads a page: a branch alone, a leaf with its neighbours. Where one of these cannot be read,
    /// that must not cost this leaf, nor be told of it.
    fn fill(&mut self, place: Place, index: Option<usize>) -> Result<(), Error> {
        let source = self.db.source();
        if let Some((frame, index)) = self.stack.last().zip(index)
            && self.ahead.reaches(self.stack.len())
        {
            let batch = self.ahead.batch(self.db, &frame.branch, index, place.offset);
            if self.window.fill(source, &batch).is_ok() {
                return Ok(());
            }
        }
        self.window.fill(source, &[Piece { offset: place.offset, len: self.db.page_size() }])
    }

    fn check_id(&self, id: PageId, place: Place) -> Result<(), Damage> {
        let PageId(high_water) = self.db.meta().high_water;
        if id < format::FIRST_DATA_PAGE || id.0 >= high_water {
            let from = self.stack.last().map_or(place, |frame| frame.place);
            return Err(from.damage(Reason::PageOutside { got: id.0, high_water }));
        }
        if id.0 >= self.db.pages() {
            let want = place.offset.saturating_add(self.db.page_size() as u64);
            let have = self.db.source().size();
            return Err(place.damage(Reason::FileEnds { have, want }));
        }
        Ok(())
    }

    fn check_header(&self, id: PageId, place: Place, header: Header) -> Result<(), Damage> {
        if header.id != id.0 {
            return Err(place.damage(Reason::PageId { got: header.id }));
        }
        if header.flags != page::FLAG_LEAF && header.flags != page::FLAG_BRANCH {
            let want = "branch (0x0001) or leaf (0x0002)";
            return Err(place.damage(Reason::PageKind { got: header.flags, want }));
        }
        if last_page(id, header).0 >= self.db.pages()
            || self.page_bytes(header) as u64 > format::PAGE_BYTES_MAX
        {
            let (overflow, high_water) = (header.overflow, self.db.pages());
            return Err(place.damage(Reason::Overflow { overflow, high_water }));
        }
        Ok(())
    }

    /// No page may be reached a second time.
    fn count(&self, pages: RangeInclusive<PageId>, reached: &mut PageSet) -> Result<(), Damage> {
        for page in (pages.start().0..=pages.end().0).map(PageId) {
            if !reached.insert(page) {
                return Err(self.db.place(page).damage(Reason::ReachedTwice));
            }
        }
        Ok(())
    }

    /// Bytes of a page with its overflow.
    fn page_bytes(&self, header: Header) -> usize {
        (header.overflow as usize).saturating_add(1).saturating_mul(self.db.page_size())
    }
}

/// The page on which a page with its overflow ends.
fn last_page(id: PageId, header: Header) -> PageId {
    PageId(id.0.saturating_add(u64::from(header.overflow)))
}

/// The only page of an inline bucket (bbolt `bucket.go`, `openBucket`).
fn inline_leaf(bytes: &[u8], place: Place) -> Result<Found, Error> {
    let inline = |reason| place.damage(Reason::Inline(Box::new(reason)));
    let header = Header::parse(bytes).ok_or_else(|| {
        inline(Reason::FileEnds { have: bytes.len() as u64, want: page::SIZE as u64 })
    })?;
    if header.flags != page::FLAG_LEAF {
        let (got, want) = (header.flags, "leaf (0x0002)");
        return Err(inline(Reason::PageKind { got, want }).into());
    }
    if header.id != 0 || header.overflow != 0 {
        return Err(inline(Reason::PageId { got: header.id }).into());
    }
    let leaf = Leaf::parse(bytes, place, Bounds::default());
    let leaf = leaf.map_err(|damage| inline(damage.reason))?;
    Ok(Found { place, bytes: bytes.len(), count: leaf.len() })
}

/// Pieces of the file in memory, used in their order.
#[derive(Debug, Default)]
struct Window {
    pieces: Vec<Piece>,
    /// Their bytes, one behind the other.
    bytes: Vec<u8>,
    /// The piece that was used last, and where its bytes begin.
    current: (usize, usize),
    /// A page that reaches beyond its piece.
    apart: Option<(Piece, Vec<u8>)>,
}

impl Window {
    /// Goes on to the piece that has these bytes, if any has them.
    fn seek(&mut self, offset: u64, len: usize) -> bool {
        let (mut index, mut start) = self.current;
        while let Some(piece) = self.pieces.get(index) {
            if within(*piece, offset, len).is_some() {
                self.current = (index, start);
                return true;
            }
            (index, start) = (index + 1, start + piece.len);
        }
        false
    }

    /// Bytes of the page that [`Self::seek`] has found or [`Self::fill_apart`] has read.
    fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if let Some((piece, bytes)) = &self.apart
            && let Some(from) = within(*piece, offset, len)
        {
            return bytes.get(from..)?.get(..len);
        }
        let (index, start) = self.current;
        let from = within(*self.pieces.get(index)?, offset, len)?;
        self.bytes.get(start..)?.get(from..)?.get(..len)
    }

    fn fill<S: ReadAt>(&mut self, source: &S, pieces: &[Piece]) -> Result<(), Error> {
        // Nothing that one huge page has stretched stays so.
        if self.bytes.capacity() > 4 * BATCH {
            self.bytes = Vec::new();
        }
        (self.current, self.apart) = ((0, 0), None);
        self.pieces.clear();
        read(source, &mut self.bytes, pieces)?;
        self.pieces.extend_from_slice(pieces);
        Ok(())
    }

    fn fill_apart<S: ReadAt>(&mut self, source: &S, piece: Piece) -> Result<(), Error> {
        let (_, mut bytes) = self.apart.take().unwrap_or_default();
        read(source, &mut bytes, &[piece])?;
        self.apart = Some((piece, bytes));
        Ok(())
    }
}

/// Where in a piece these bytes begin that it has.
fn within(piece: Piece, offset: u64, len: usize) -> Option<usize> {
    let from = usize::try_from(offset.checked_sub(piece.offset)?).ok()?;
    (from.checked_add(len)? <= piece.len).then_some(from)
}

fn read<S: ReadAt>(source: &S, bytes: &mut Vec<u8>, pieces: &[Piece]) -> Result<(), Error> {
    source.read_pieces(bytes, pieces).map_err(|error| {
        let (offset, len) = pieces.first().map_or((0, 0), |piece| (piece.offset, piece.len));
        Error::read(&error, offset, len)
    })
}
