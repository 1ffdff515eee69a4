//! The digest table: what the last base of a cluster holds, kept in the spool of the host that wrote
//! it, so that the next snapshot can be compared with it record by record without reading the
//! archive. It is no part of the archive: without it, a base is written in full.
//!
//! ```text
//! 16   "rekindle table 1"
//! rows, in the order of their records
//!    varint  revision, less that of the row before
//!    varint  2 x sub-revision, + 1 for a tombstone
//!    varint  number of the record in its part
//!    16      KeyHash of the key that it is about
//!    16      the first bytes of its value's digest
//! sized  name of the base
//! 32     digest of the base's body
//! the base without its frame
//! 8    where the rows end
//! 32   BLAKE3 of all before
//! ```

use crate::error::Error;
use crate::format::base::{Base, Part};
use crate::format::block::{Fingerprint, key_of, packed_sub};
use crate::format::cursor::{Cursor, Put};
use crate::format::filter::KeyHash;
use crate::format::{DIGEST, Domain, FormatFault, Hasher};
use rekindle_etcd::{RecordKey, Revision};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 16] = b"rekindle table 1";
/// Bytes of a value's digest that are kept.
const SHORT: usize = 16;
const BUFFER: usize = 1 << 20;

/// A record as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub key: RecordKey,
    /// Its number in its part.
    pub number: u64,
    /// The key that it is about.
    pub name: KeyHash,
    /// Of its value's digest.
    pub value: [u8; SHORT],
}

impl Row {
    pub(crate) fn new(print: &Fingerprint, number: u64) -> Self {
        let mut value = [0; SHORT];
        value.iter_mut().zip(print.value).for_each(|(kept, byte)| *kept = byte);
        Self { key: print.key, number, name: print.name, value }
    }
}

/// A table that is being written, beside the one that it will replace.
pub(crate) struct TableWriter {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Hasher,
    row: Vec<u8>,
    before: Revision,
    bytes: u64,
}

impl TableWriter {
    /// Begins one that is to become `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let failed = |error| at(path, &error);
        let part = part_of(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        // What a killed run has left may have another mode.
        let _ = std::fs::remove_file(&part);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
        let mut table = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(BUFFER, file),
            digest: Domain::Table.hasher(),
            row: Vec::new(),
            before: Revision::default(),
            bytes: 0,
        };
        table.write(MAGIC)?;
        Ok(table)
    }

    pub(crate) fn add(&mut self, row: &Row) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.row);
        bytes.clear();
        bytes.put_varint(row.key.revision.get().abs_diff(self.before.get()));
        bytes.put_varint(packed_sub(row.key));
        bytes.put_varint(row.number);
        bytes.extend_from_slice(&row.name.to_bytes());
        bytes.extend_from_slice(&row.value);
        self.before = row.key.revision;
        let written = self.write(&bytes);
        self.row = bytes;
        written
    }

    /// Ends it with what it is the table of, and puts it in place.
    pub(crate) fn commit(
        mut self,
        name: &str,
        body: &[u8; DIGEST],
        base: &Base,
    ) -> Result<(), Error> {
        let rows_end = self.bytes;
        let mut end = Vec::new();
        end.put_sized(name.as_bytes());
        end.extend_from_slice(body);
        let frameless = Base { frame: Vec::new(), parts: base.parts.clone(), ..*base };
        end.extend(frameless.encode().map_err(|fault| damaged(&self.path, fault))?);
        end.extend_from_slice(&rows_end.to_le_bytes());
        self.write(&end)?;
        let digest = self.digest.value();
        let path = self.path.clone();
        let mut save = || -> io::Result<()> {
            self.file.write_all(&digest)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            std::fs::rename(part_of(&path), &path)
        };
        save().map_err(|error| at(&path, &error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.add(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| at(&self.path, &error))
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        // Once it is in place, nothing is there.
        let _ = std::fs::remove_file(part_of(&self.path));
    }
}

/// A table whose digest is good.
pub(crate) struct Table {
    /// The base that it is of.
    pub base: String,
    /// Digest of that base's body.
    pub body: [u8; DIGEST],
    /// That base's parts.
    pub parts: Vec<Part>,
    rows: Rows,
}

/// The rows of a table, in order.
pub(crate) struct Rows {
    file: io::Take<BufReader<File>>,
    path: PathBuf,
    before: Revision,
}

impl Table {
    /// Opens the table at `path`; none where there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |error: io::Error| at(path, &error);
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let (rows_end, end) = read_end(&mut file).map_err(failed)?;
        let Some(end) = end else { return Err(damaged(path, CHANGED)) };
        let mut cursor = Cursor::new(&end, WHAT);
        let mut parse = || {
            let base = String::from_utf8_lossy(cursor.sized()?).into_owned();
            let body = cursor.array()?;
            Ok((base, body, Base::parse(cursor.rest())?.parts))
        };
        let (base, body, parts) = parse().map_err(|fault| damaged(path, fault))?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64)).map_err(failed)?;
        let rows = rows_end.saturating_sub(MAGIC.len() as u64);
        let file = BufReader::with_capacity(BUFFER, file).take(rows);
        let rows = Rows { file, path: path.to_owned(), before: Revision::default() };
        Ok(Some(Self { base, body, parts, rows }))
    }

    pub(crate) fn into_rows(self) -> Rows {
        self.rows
    }
}

const WHAT: &str = "the digest table";
const CHANGED: FormatFault = FormatFault::Digest { what: WHAT };

/// Compares the digest of a table, and gives where its rows end and what stands behind them.
fn read_end(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let len = file.metadata()?.len();
    let Some(digested) = len.checked_sub(DIGEST as u64) else { return Ok((0, None)) };
    let mut digest = Domain::Table.hasher();
    let mut reader = BufReader::with_capacity(BUFFER, &*file).take(digested);
    let mut magic = [0; MAGIC.len()];
    let begins = reader.read_exact(&mut magic).is_ok() && magic == *MAGIC;
    digest.add(&magic);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        digest.add(bytes);
        let len = bytes.len();
        reader.consume(len);
    }
    let mut want = [0; DIGEST];
    reader.into_inner().read_exact(&mut want)?;
    if !begins || digest.value() != want {
        return Ok((0, None));
    }
    let mut number = [0; 8];
    file.seek(SeekFrom::Start(digested.saturating_sub(8)))?;
    file.read_exact(&mut number)?;
    let rows_end = u64::from_le_bytes(number);
    file.seek(SeekFrom::Start(rows_end))?;
    let mut end = Vec::new();
    Read::by_ref(file).take(digested.saturating_sub(rows_end + 8)).read_to_end(&mut end)?;
    Ok((rows_end, Some(end)))
}

impl Rows {
    /// The next row; none at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let path = self.path.clone();
        self.read_row().map_err(|error| at(&path, &error))
    }

    fn read_row(&mut self) -> io::Result<Option<Row>> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let revision = self.before.later(self.varint()?).ok_or_else(invalid)?;
        let key = key_of(revision, self.varint()?);
        let number = self.varint()?;
        let (mut name, mut value) = ([0; 16], [0; SHORT]);
        self.file.read_exact(&mut name)?;
        self.file.read_exact(&mut value)?;
        self.before = revision;
        Ok(Some(Row { key, number, name: KeyHash::from_bytes(name), value }))
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn part_of(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

fn damaged(path: &Path, fault: FormatFault) -> Error {
    Error::damaged(&path.display().to_string(), fault)
}

fn at(path: &Path, error: &io::Error) -> Error {
    Error::Spool { path: path.display().to_string(), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::block::tests::a_key;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn rows() -> Vec<Row> {
        let row = |n: i64| Row {
            key: a_key(n * n, n % 3, n % 7 == 0),
            number: n.unsigned_abs() * 1000,
            name: KeyHash::of(&n.to_le_bytes()),
            value: [n as u8; SHORT],
        };
        (1..100).map(row).collect()
    }

    fn write(path: &Path) {
        let mut table = TableWriter::create(path).unwrap();
        rows().iter().for_each(|row| table.add(row).unwrap());
        let (parts, frame) = (Vec::new(), vec![1; 100]);
        let base = Base { hash: 1, kubernetes: true, erased: 0, parts, frame };
        table.commit("its name", &[7; DIGEST], &base).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool/a.table");
        assert!(Table::open(&path).unwrap().is_none());
        drop(TableWriter::create(&path).unwrap());
        assert!(Table::open(&path).unwrap().is_none(), "it was not ended");
        write(&path);
        let table = Table::open(&path).unwrap().unwrap();
        assert_eq!((table.base.as_str(), table.body), ("its name", [7; DIGEST]));
        let mut read = table.into_rows();
        for row in rows() {
            assert_eq!(read.next_row().unwrap(), Some(row));
        }
        assert_eq!(read.next_row().unwrap(), None);
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(files.count(), 1, "no .part stays");
    }

    #[test]
    fn a_damaged_table_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.table");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(Table::open(&path).is_err(), "byte {at} changed");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Table::open(&path).is_err(), "cut at {at}");
        }
    }
    /// Puts the digest behind what is a table or not.
    fn digested(bytes: &[u8]) -> Vec<u8> {
        [bytes, &Domain::Table.digest(&[bytes])].concat()
    }

    proptest! {
        /// Whatever stands in a table of which the digest is good: it is read to its end, or refused.
        #[test]
        fn any_table_is_read_or_refused(
            changes in vec((any::<Index>(), any::<u8>()), 0..6),
            cut in option::of(any::<Index>()),
            rows_end in option::of(any::<u64>()),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.table");
            write(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.truncate(bytes.len() - DIGEST);
            for (at, byte) in &changes {
                let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(MAGIC.len() + cut.index(bytes.len() - MAGIC.len()));
            }
            if let Some(rows_end) = rows_end {
                bytes.truncate(bytes.len().saturating_sub(8).max(MAGIC.len()));
                bytes.extend_from_slice(&rows_end.to_le_bytes());
            }
            std::fs::write(&path, digested(&bytes)).unwrap();
            if let Ok(table) = Table::open(&path) {
                let mut rows = table.unwrap().into_rows();
                let mut count = 0;
                while let Ok(Some(_)) = rows.next_row() {
                    count += 1;
                }
                prop_assert!(count <= bytes.len() / 34, "a row has so many bytes at least");
            }
        }
    }
}
