//! Objects that are written while they come into being: in parts, seen only when they are whole.

use super::{Objects, Store, StoreFault, StoreFaultKind};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Bytes of a part. Stores take some thousand parts at most, of 5 MiB at least; some want all but the
/// last one to be of the same size.
const PART: usize = 16 << 20;
/// Parts that are on their way at once.
const SENDING: usize = 2;

/// An object on its way into a store, in place of one of that name. Nobody sees it before it is
/// completed; dropped before, it takes its parts away again.
pub struct Upload {
    objects: Objects,
    runtime: Arc<Runtime>,
    name: String,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    bytes: u64,
    parts: Option<Box<dyn MultipartUpload>>,
    sending: VecDeque<JoinHandle<object_store::Result<()>>>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Store {
    /// Begins an object that replaces one of that name once it is whole. What is small goes in one
    /// piece, at its completion.
    #[must_use]
    pub fn upload(&self, name: &str) -> Upload {
        Upload {
            objects: self.objects.clone(),
            runtime: Arc::clone(&self.runtime),
            name: name.to_owned(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            bytes: 0,
            parts: None,
            sending: VecDeque::new(),
        }
    }
}

impl Store {
    /// Puts an object in the place of one of that name, which stands until the new one is whole.
    pub(crate) fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreFault> {
        let mut upload = self.upload(name);
        upload.write(bytes)?;
        upload.complete()
    }
}

impl Upload {
    /// The next bytes.
    ///
    /// # Errors
    /// [`StoreFault`], of these bytes or of earlier ones.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), StoreFault> {
        self.waiting_bytes += bytes.len();
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.waiting.push_back(bytes);
        while self.waiting_bytes >= PART {
            let part = self.take(PART);
            self.send(part)?;
        }
        Ok(())
    }

    /// Makes the object visible.
    ///
    /// # Errors
    /// [`StoreFault`]; the object is not there then, unless [`StoreFault::may_be_done`].
    pub fn complete(mut self) -> Result<(), StoreFault> {
        let rest = self.take(self.waiting_bytes);
        if self.parts.is_none() {
            let path = Path::from(self.name.as_str());
            self.objects.check_root("writing", &self.name)?;
            let put = self.runtime.block_on(self.objects.store.put(&path, rest));
            put.map_err(|error| self.fault(&error))?;
            return self.compare();
        }
        if rest.content_length() > 0 {
            self.send(rest)?;
        }
        while !self.sending.is_empty() {
            self.finish_one()?;
        }
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        if let Err(error) = self.runtime.block_on(parts.complete()) {
            let fault = self.fault(&error);
            // What the store may have completed is no more to be given up.
            if !fault.may_be_done() {
                self.parts = Some(parts);
            }
            return Err(fault);
        }
        self.compare()
    }

    /// So many of the bytes that wait, as a part.
    fn take(&mut self, len: usize) -> PutPayload {
        let (mut left, mut part) = (len, Vec::new());
        while left > 0 {
            let Some(mut bytes) = self.waiting.pop_front() else { break };
            if bytes.len() > left {
                self.waiting.push_front(bytes.split_off(left));
            }
            left -= bytes.len();
            part.push(bytes);
        }
        self.waiting_bytes -= len - left;
        part.into_iter().collect()
    }

    fn send(&mut self, part: PutPayload) -> Result<(), StoreFault> {
        while self.sending.len() >= SENDING {
            self.finish_one()?;
        }
        if self.parts.is_none() {
            let path = Path::from(self.name.as_str());
            self.objects.check_root("writing", &self.name)?;
            let begun = self.runtime.block_on(self.objects.store.put_multipart(&path));
            self.parts = Some(begun.map_err(|error| self.fault(&error))?);
        }
        if let Some(parts) = &mut self.parts {
            self.sending.push_back(self.runtime.spawn(parts.put_part(part)));
        }
        Ok(())
    }

    fn finish_one(&mut self) -> Result<(), StoreFault> {
        let Some(part) = self.sending.pop_front() else { return Ok(()) };
        match self.runtime.block_on(part) {
            Ok(sent) => sent.map_err(|error| self.fault(&error)),
            Err(error) => Err(self.fault(&error.into())),
        }
    }

    /// What the store now has is as long as what it was given.
    fn compare(&self) -> Result<(), StoreFault> {
        let path = Path::from(self.name.as_str());
        let found = self.runtime.block_on(self.objects.store.head(&path));
        let got = found.map_err(|error| self.objects.fault("looking at", &self.name, &error))?.size;
        match got == self.bytes {
            true => Ok(()),
            false => Err(StoreFault {
                doing: "uploading",
                object: self.objects.full_name(&self.name),
                kind: StoreFaultKind::Failed,
                cause: format!("the store has {got} bytes of {}", self.bytes),
            }),
        }
    }

    fn fault(&self, error: &object_store::Error) -> StoreFault {
        self.objects.fault("uploading", &self.name, error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        for part in self.sending.drain(..) {
            part.abort();
        }
        if let Some(mut parts) = self.parts.take() {
            // Whoever failed has said so; what stays is for the store's own rule on unfinished
            // uploads.
            let _ = self.runtime.block_on(parts.abort());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::faulty;
    use super::*;
    use rekindle_testkit::fault_store::{Fault, Op, When};

    fn bytes(len: usize) -> Bytes {
        (0..len).map(|n| (n / 251) as u8).collect::<Vec<_>>().into()
    }

    fn given(store: &Store, pieces: &[usize]) -> Result<(), StoreFault> {
        let whole = bytes(pieces.iter().sum());
        let mut upload = store.upload("object");
        let mut at = 0;
        for piece in pieces {
            upload.write(whole.slice(at..at + piece))?;
            at += piece;
        }
        upload.complete()
    }

    #[test]
    fn what_is_large_goes_in_parts() {
        let check = |pieces: &[usize], parts: usize| {
            let (objects, store) = faulty();
            given(&store, pieces).unwrap();
            let sent = objects.log().iter().filter(|(op, _)| *op == Op::Part).count();
            assert_eq!(sent, parts, "{pieces:?}");
            let there = store.read("object", u64::MAX).unwrap();
            assert!(there == bytes(pieces.iter().sum()), "{pieces:?}");
        };
        check(&[], 0);
        check(&[10], 0);
        check(&[PART - 1], 0);
        check(&[PART], 1);
        check(&[PART - 1, 2], 2);
        check(&[1, 2 * PART, PART], 4);
    }

    /// Whatever fails, the object is not there, and nothing of it stays.
    #[test]
    fn an_upload_that_fails_leaves_nothing() {
        for number in 1..=5 {
            let (objects, store) = faulty();
            objects.fail(Fault::Error, When::Once(number));
            given(&store, &[PART, PART, 1]).unwrap_err();
            let ended = objects.log();
            objects.heal();
            let missing = store.read("object", u64::MAX).unwrap_err();
            assert_eq!(missing.kind, StoreFaultKind::NotFound, "{number}");
            let begun = number > 1;
            // Where the store may have completed it all the same, there is nothing to give up.
            let given_up = ended.iter().any(|(op, _)| *op == Op::Abort);
            assert_eq!(given_up, begun && number < 5, "{number}: {ended:?}");
        }
    }

    #[test]
    fn an_upload_that_is_dropped_is_given_up() {
        let (objects, store) = faulty();
        let mut upload = store.upload("object");
        upload.write(bytes(PART)).unwrap();
        drop(upload);
        assert_eq!(objects.log().last().unwrap().0, Op::Abort);
    }
}
