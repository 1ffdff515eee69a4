//! age's payload: pieces of 64 KiB, each under a nonce that counts them and says which is the last.
//!
//! The age crate does this, too, and the tests hold the two to each other. ring's cipher is several
//! times as fast as the one there, and a body's pieces are opened on several threads: a restore reads
//! everything through here.
//!
//! What may never happen here: bytes that come out before their tag was compared; a payload that was
//! cut, lengthened or put together anew and is taken for whole.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use std::ops::Range;
use std::thread;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Bytes of its tag, which stands behind it.
const TAG: usize = 16;
/// Bytes of a key that age makes for each file.
pub(super) const FILE_KEY: usize = 16;
/// Bytes of the nonce that a payload begins with.
pub(super) const NONCE: usize = 16;
/// Pieces that are worth a thread: what one takes to start is less than these take to be opened.
const PIECES_A_THREAD: usize = 16;
/// Threads that open one payload at most.
const THREADS_MAX: usize = 4;

/// What one payload is sealed with.
pub(super) struct PayloadKey(LessSafeKey);

/// A payload is not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changed;

impl PayloadKey {
    pub(super) fn new(file_key: &[u8; FILE_KEY], nonce: &[u8; NONCE]) -> Result<Self, Changed> {
        let secret = Salt::new(HKDF_SHA256, nonce).extract(file_key);
        let key = secret.expand(&[b"payload"], &CHACHA20_POLY1305).map_err(|_| Changed)?;
        Ok(Self(LessSafeKey::new(UnboundKey::from(key))))
    }

    /// Puts the parts, one behind the other and sealed, behind `out`.
    pub(super) fn seal(&self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Changed> {
        let (mut number, mut start) = (0, out.len());
        for part in parts {
            let mut part = *part;
            while !part.is_empty() {
                if out.len() - start == PIECE {
                    self.seal_piece(number, false, out, start)?;
                    (number, start) = (number + 1, out.len());
                }
                let (now, later) = part.split_at(part.len().min(PIECE - (out.len() - start)));
                out.extend_from_slice(now);
                part = later;
            }
        }
        self.seal_piece(number, true, out, start)
    }

    fn seal_piece(
        &self,
        number: usize,
        last: bool,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), Changed> {
        let piece = out.get_mut(start..).unwrap_or_default();
        let tag = self.0.seal_in_place_separate_tag(nonce(number, last), Aad::empty(), piece);
        out.extend_from_slice(tag.map_err(|_| Changed)?.as_ref());
        Ok(())
    }

    /// Puts what was sealed behind `out`. An empty payload is refused: nothing of ours is.
    pub(super) fn open(&self, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), Changed> {
        let pieces = sealed.len().div_ceil(PIECE + TAG);
        let last = sealed.chunks(PIECE + TAG).next_back().unwrap_or_default();
        if last.len() <= TAG {
            return Err(Changed);
        }
        let start = out.len();
        out.resize(start + sealed.len() - pieces * TAG, 0);
        let out = out.get_mut(start..).unwrap_or_default();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let share = pieces.div_ceil(threads).max(PIECES_A_THREAD);
        let shares = sealed.chunks(share * (PIECE + TAG)).zip(out.chunks_mut(share * PIECE));
        let mut shares = shares.enumerate().map(|(index, (sealed, out))| {
            let first = index * share;
            move || self.open_pieces(first..pieces, sealed, out)
        });
        // The first share is done here.
        let Some(mut mine) = shares.next() else { return Err(Changed) };
        thread::scope(|scope| {
            let others: Vec<_> = shares.map(|work| scope.spawn(work)).collect();
            let done = mine();
            let others = others.into_iter().map(|other| other.join().unwrap_or(Err(Changed)));
            others.fold(done, Result::and)
        })
    }

    /// Opens what was sealed where it lies, and tells how many bytes of it are what was sealed.
    pub(super) fn open_in_place(&self, sealed: &mut [u8]) -> Result<usize, Changed> {
        let pieces = sealed.len().div_ceil(PIECE + TAG);
        let (mut rest, mut opened) = (sealed, 0);
        for number in 0..pieces {
            // What stands before it are the tags of those before.
            let gap = number * TAG;
            let end = rest.len().min(gap + PIECE + TAG);
            let piece = rest.get_mut(..end).unwrap_or_default();
            let (piece, tag) = piece.split_last_chunk_mut::<TAG>().ok_or(Changed)?;
            let len = piece.len().checked_sub(gap).filter(|len| *len > 0).ok_or(Changed)?;
            let (nonce, tag) = (nonce(number, number + 1 == pieces), Tag::from(*tag));
            let done = self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag, piece, gap..);
            done.map_err(|_| Changed)?;
            opened += len;
            rest = rest.get_mut(len..).unwrap_or_default();
        }
        if opened == 0 { Err(Changed) } else { Ok(opened) }
    }

    /// Opens pieces from the first of `numbers` on, of a payload that ends where those end.
    fn open_pieces(
        &self,
        numbers: Range<usize>,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), Changed> {
        let last = numbers.end.saturating_sub(1);
        let pieces = numbers.zip(sealed.chunks(PIECE + TAG).zip(out.chunks_mut(PIECE)));
        for (number, (sealed, out)) in pieces {
            let split = sealed.split_last_chunk::<TAG>();
            let (sealed, tag) =
                split.filter(|(piece, _)| piece.len() == out.len()).ok_or(Changed)?;
            out.copy_from_slice(sealed);
            let (nonce, tag) = (nonce(number, number == last), Tag::from(*tag));
            let opened = self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag, out, 0..);
            opened.map_err(|_| Changed)?;
        }
        Ok(())
    }
}

/// 11 bytes that count, and one that says whether it is the last.
fn nonce(number: usize, last: bool) -> Nonce {
    let counter = (number as u128) << 8 | u128::from(last);
    let [_, _, _, _, nonce @ ..] = counter.to_be_bytes();
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_key() -> PayloadKey {
        PayloadKey::new(&[1; FILE_KEY], &[2; NONCE]).unwrap()
    }

    /// Both ways do the same.
    fn opened(sealed: &[u8]) -> Result<Vec<u8>, Changed> {
        let mut out = b"before".to_vec();
        let opened = a_key().open(sealed, &mut out).map(|()| out.split_off(6));
        let mut place = sealed.to_vec();
        let in_place = a_key().open_in_place(&mut place).map(|len| place[..len].to_vec());
        assert!(in_place == opened);
        opened
    }

    #[test]
    fn pieces_come_back_however_many_there_are() {
        let many = PIECES_A_THREAD * THREADS_MAX * PIECE;
        for len in [1, 2, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, many, many + PIECE + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (one, other) = bytes.split_at(len / 3);
            let mut sealed = Vec::new();
            a_key().seal(&[one, &[], other], &mut sealed).unwrap();
            assert_eq!(sealed.len(), len + len.div_ceil(PIECE) * TAG);
            assert!(opened(&sealed).unwrap() == bytes, "{len}");
        }
    }

    #[test]
    fn pieces_that_were_moved_cut_or_added_are_noticed() {
        let len = (PIECES_A_THREAD * 2 + 3) * PIECE + 100;
        let mut sealed = Vec::new();
        a_key().seal(&[&vec![9; len]], &mut sealed).unwrap();
        let refused = |bytes: &[u8], what: &str| assert_eq!(opened(bytes), Err(Changed), "{what}");
        for number in 0..sealed.len() / (PIECE + TAG) {
            let at = number * (PIECE + TAG);
            let (before, rest) = sealed.split_at(at);
            refused(before, "cut between pieces");
            refused(&[before, &rest[PIECE + TAG..]].concat(), "without a piece");
            refused(&[before, &rest[..PIECE + TAG], rest].concat(), "with a piece twice");
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            refused(&changed, "changed");
        }
        refused(&sealed[..sealed.len() - 1], "cut");
        refused(&sealed[..sealed.len() - 100], "cut to a tag");
        refused(&[&sealed[..], &[0]].concat(), "longer");
        refused(&[&sealed[..], &[0; TAG]].concat(), "longer by a tag");
        refused(&[], "nothing");
        let mut empty = Vec::new();
        a_key().seal(&[], &mut empty).unwrap();
        refused(&empty, "empty");
    }
}
