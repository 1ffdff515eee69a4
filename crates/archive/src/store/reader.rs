//! A large object from front to back, in pieces that are asked for ahead.

use super::{Objects, Store, StoreFault, StoreFaultKind};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetResult};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes that are asked for at once.
const PIECE: u64 = 8 << 20;
/// Requests that are under way at once.
const AHEAD: usize = 4;

/// An object that is being read. All pieces are of the same object, also where another one takes
/// its place meanwhile: that is a fault.
#[derive(Debug)]
pub struct Reader {
    size: u64,
    /// What the requests run on.
    _runtime: Arc<Runtime>,
    pieces: Receiver<Result<Bytes, StoreFault>>,
}

impl Reader {
    /// Bytes of the object.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Iterator for Reader {
    type Item = Result<Bytes, StoreFault>;

    /// The next piece.
    fn next(&mut self) -> Option<Self::Item> {
        self.pieces.blocking_recv()
    }
}

impl Store {
    /// Begins to read a large object.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn reader(&self, name: &str) -> Result<Reader, StoreFault> {
        let first = self.runtime.block_on(self.objects.piece(name, 0..PIECE, None));
        let first = match first {
            Ok(first) => first,
            // The range of an empty object is none.
            Err(fault) => return self.empty(name).ok_or(fault),
        };
        let (size, tag) = (first.meta.size, first.meta.e_tag.clone());
        let (to, pieces) = channel(1);
        let (objects, name) = (self.objects.clone(), name.to_owned());
        self.runtime.spawn(async move { objects.hand_over(&name, first, tag, &to).await });
        Ok(Reader { size, pieces, _runtime: Arc::clone(&self.runtime) })
    }

    fn empty(&self, name: &str) -> Option<Reader> {
        let there = self.read(name, 0).ok()?;
        let _runtime = Arc::clone(&self.runtime);
        there.is_empty().then(|| Reader { size: 0, pieces: channel(1).1, _runtime })
    }
}

impl Objects {
    async fn piece(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
        tag: Option<String>,
    ) -> Result<GetResult, StoreFault> {
        let options =
            GetOptions { range: Some(range.into()), if_match: tag, ..GetOptions::default() };
        let found = self.store.get_opts(&Path::from(name), options).await;
        found.map_err(|error| {
            let fault = self.fault("reading", name, &error);
            match fault.kind {
                StoreFaultKind::Exists => StoreFault {
                    kind: StoreFaultKind::Unavailable,
                    cause: "another object took its place while it was read".to_owned(),
                    ..fault
                },
                _ => fault,
            }
        })
    }

    /// All pieces, in order, until nobody wants them.
    async fn hand_over(
        &self,
        name: &str,
        first: GetResult,
        tag: Option<String>,
        to: &Sender<Result<Bytes, StoreFault>>,
    ) {
        let size = first.meta.size;
        let first = self.bytes(name, first, size.min(PIECE));
        let rest = (1..size.div_ceil(PIECE)).map(|number| {
            let begin = number.saturating_mul(PIECE);
            let end = begin.saturating_add(PIECE).min(size);
            let tag = tag.clone();
            async move {
                let found = self.piece(name, begin..end, tag).await?;
                self.bytes(name, found, end - begin).await
            }
        });
        let rest = stream::iter(rest).buffered(AHEAD);
        let mut pieces = std::pin::pin!(stream::once(first).chain(rest));
        while let Some(piece) = pieces.next().await {
            let failed = piece.is_err();
            if to.send(piece).await.is_err() || failed {
                return;
            }
        }
    }

    async fn bytes(&self, name: &str, found: GetResult, len: u64) -> Result<Bytes, StoreFault> {
        let bytes = found.bytes().await;
        self.whole(name, bytes.map_err(|error| self.fault("reading", name, &error))?, len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::faulty;
    use super::*;
    use rekindle_testkit::fault_store::{Fault, When};

    #[test]
    fn pieces_make_the_object() {
        let (_, store) = faulty();
        for len in [0, 1, PIECE as usize, PIECE as usize + 1, 3 * PIECE as usize - 1] {
            let name = format!("object-{len}");
            let bytes: Vec<u8> = (0..len).map(|n| (n / 253) as u8).collect();
            store.create(&name, bytes.clone()).unwrap();
            let reader = store.reader(&name).unwrap();
            assert_eq!(reader.size(), len as u64);
            let pieces: Vec<Bytes> = reader.map(Result::unwrap).collect();
            assert!(pieces.concat() == bytes, "{len}");
        }
    }

    #[test]
    fn what_fails_or_changes_on_the_way_is_told() {
        let (objects, store) = faulty();
        store.create("object", vec![1; 2 * PIECE as usize]).unwrap();
        objects.fail(Fault::Truncated, When::Once(3));
        let read: Result<Vec<Bytes>, _> = store.reader("object").unwrap().collect();
        assert!(read.unwrap_err().to_string().contains("bytes came instead of"));
        objects.heal();
        let missing = store.reader("other").unwrap_err();
        assert_eq!(missing.kind, StoreFaultKind::NotFound);

        let mut replaced = store.upload("object");
        replaced.write(vec![2; 10].into()).unwrap();
        let tag = Some("\"another\"".to_owned());
        let changed = store.runtime.block_on(store.objects.piece("object", 0..10, tag));
        assert!(changed.unwrap_err().cause.contains("took its place"));
    }
}
