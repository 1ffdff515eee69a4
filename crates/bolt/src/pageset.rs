//! A set of page ids: one bit a page.

use crate::format::PageId;

/// Which of a file's pages were met. As large as the file has pages, never larger.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    count: u64,
}

impl PageSet {
    /// An empty set for page ids below `pages`.
    pub(crate) fn for_pages(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], count: 0 }
    }

    /// Adds a page; false where it was there, or lies outside the set.
    pub(crate) fn insert(&mut self, page: PageId) -> bool {
        let bit = 1 << (page.0 % 64);
        let word = usize::try_from(page.0 / 64).ok().and_then(|at| self.words.get_mut(at));
        match word {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.count += 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn contains(&self, page: PageId) -> bool {
        let word = usize::try_from(page.0 / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word & (1 << (page.0 % 64)) != 0)
    }

    /// Pages in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
