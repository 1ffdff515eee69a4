//! A file system in memory that fails on command and forgets what was not synced.
//!
//! Every operation counts. [`SimDisk::fail_at`] makes one of them fail, or all from one on;
//! [`SimDisk::cut_power_at`] ends the world there. After a cut, [`SimDisk::after_power_cut`] is what a
//! disk would hold: what was synced, and of the rest as many directory changes as the seed says, in
//! their order, and of the files' bytes any part.

use rekindle_datadir::{Disk, Identity, Lock, NewFile, Stat};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Component, Path};
use std::sync::{Mutex, MutexGuard};

/// The disk. Clones share nothing.
#[derive(Debug)]
pub struct SimDisk {
    state: Mutex<State>,
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        Self::of(self.state().clone())
    }
}

#[derive(Clone, Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Directory changes that no sync has covered; each group happens as a whole or not at all.
    pending: Vec<Vec<Edit>>,
    operations: u64,
    fault: Option<Fault>,
    can_exchange: bool,
    locked: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: u64,
    /// All operations from there on.
    sticky: bool,
}

#[derive(Clone, Debug)]
enum Node {
    Directory { entries: Entries, durable: Entries, mode: u32 },
    File { data: Vec<u8>, durable: Vec<u8>, mode: u32 },
}

type Entries = BTreeMap<String, u64>;

/// A name that now means something else, or nothing.
#[derive(Clone, Debug)]
struct Edit {
    directory: u64,
    name: String,
    inode: Option<u64>,
}

const ROOT: u64 = 1;

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        let root =
            Node::Directory { entries: Entries::new(), durable: Entries::new(), mode: 0o755 };
        let state = State {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
            operations: 0,
            fault: None,
            can_exchange: true,
            locked: Vec::new(),
        };
        Self::of(state)
    }

    fn of(state: State) -> Self {
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same disk on a file system that cannot exchange two names.
    #[must_use]
    pub fn without_exchange(self) -> Self {
        self.state().can_exchange = false;
        self
    }

    /// Makes operation `at` (from 0) fail once.
    pub fn fail_at(&self, at: u64) {
        self.state().fault = Some(Fault { at, sticky: false });
    }

    /// Makes operation `at` and all after it fail: the process has no disk any more.
    pub fn cut_power_at(&self, at: u64) {
        self.state().fault = Some(Fault { at, sticky: true });
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes a file look locked by another process.
    pub fn lock(&self, path: &Path) {
        let mut state = self.state();
        let inode = state.find(path).unwrap();
        state.locked.push(inode);
    }

    /// What is there after the process was killed: everything that it did.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        (state.fault, state.operations) = (None, 0);
        state.locked.clear();
        Self::of(state)
    }

    /// What is there after the power was cut. Seed 0: only what was synced; seed 1: everything but
    /// unsynced bytes; others: something between.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut state = self.state().clone();
        (state.fault, state.operations) = (None, 0);
        state.locked.clear();
        let mut random = Random(seed);
        let pending = std::mem::take(&mut state.pending);
        let kept = match seed {
            0 => 0,
            1 => pending.len() as u64,
            _ => random.below(pending.len() as u64 + 1),
        };
        for node in state.nodes.values_mut() {
            match node {
                Node::Directory { entries, durable, .. } => entries.clone_from(durable),
                Node::File { data, durable, .. } if seed < 2 => data.clone_from(durable),
                Node::File { data, durable, .. } => {
                    // Some of the new bytes have come through, from the start.
                    let survived = random.below(data.len() as u64 + 1) as usize;
                    let mut bytes = durable.clone();
                    bytes.resize(bytes.len().max(survived), 0);
                    bytes[..survived].copy_from_slice(&data[..survived]);
                    data.clone_from(&bytes);
                    *durable = bytes;
                }
            }
        }
        for edit in pending.iter().take(kept as usize).flatten() {
            state.apply(edit);
        }
        Self::of(state)
    }

    /// Every file and directory below a path, with the files' bytes; nothing counts.
    #[must_use]
    pub fn tree(&self, path: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
        let state = self.state();
        let mut tree = BTreeMap::new();
        if let Some(inode) = state.find(path) {
            state.walk(inode, String::new(), &mut tree);
        }
        tree
    }

    /// Puts a durable file there, with the directories above it; nothing counts.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let mut at = ROOT;
        let names: Vec<_> = names(path).collect();
        for (depth, name) in names.iter().enumerate() {
            let is_file = depth + 1 == names.len();
            at = match state.entries(at).and_then(|entries| entries.get(name).copied()) {
                Some(found) => found,
                None => {
                    let node = if is_file {
                        let bytes = bytes.to_vec();
                        Node::File { data: bytes.clone(), durable: bytes, mode: 0o600 }
                    } else {
                        let entries = Entries::new();
                        Node::Directory { durable: entries.clone(), entries, mode: 0o700 }
                    };
                    let inode = state.add(node);
                    let Some(Node::Directory { entries, durable, .. }) = state.nodes.get_mut(&at)
                    else {
                        panic!("{} goes through a file", path.display());
                    };
                    entries.insert(name.clone(), inode);
                    durable.insert(name.clone(), inode);
                    inode
                }
            };
        }
    }

    fn operation(&self) -> io::Result<()> {
        let mut state = self.state();
        let now = state.operations;
        state.operations += 1;
        match state.fault {
            Some(Fault { at, sticky }) if now == at || (sticky && now > at) => {
                Err(io::Error::from(io::ErrorKind::Other))
            }
            _ => Ok(()),
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = String> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}

impl State {
    fn add(&mut self, node: Node) -> u64 {
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        inode
    }

    fn entries(&self, inode: u64) -> Option<&Entries> {
        match self.nodes.get(&inode)? {
            Node::Directory { entries, .. } => Some(entries),
            Node::File { .. } => None,
        }
    }

    fn find(&self, path: &Path) -> Option<u64> {
        names(path).try_fold(ROOT, |at, name| self.entries(at)?.get(&name).copied())
    }

    fn must_find(&self, path: &Path) -> io::Result<u64> {
        self.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory above a path, and the path's name in it.
    fn locate(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = self.must_find(path.parent().unwrap_or(Path::new("/")))?;
        self.entries(parent).ok_or(io::ErrorKind::NotADirectory)?;
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        Ok((parent, name.to_owned()))
    }

    fn apply(&mut self, edit: &Edit) {
        if let Some(Node::Directory { entries, durable, .. }) = self.nodes.get_mut(&edit.directory)
        {
            for names in [entries, durable] {
                match edit.inode {
                    Some(inode) => names.insert(edit.name.clone(), inode),
                    None => names.remove(&edit.name),
                };
            }
        }
    }

    /// Changes names now, and durably with the next sync of a directory concerned.
    fn edit(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            if let Some(Node::Directory { entries, .. }) = self.nodes.get_mut(&edit.directory) {
                match edit.inode {
                    Some(inode) => entries.insert(edit.name.clone(), inode),
                    None => entries.remove(&edit.name),
                };
            }
        }
        self.pending.push(edits);
    }

    fn walk(&self, inode: u64, path: String, tree: &mut BTreeMap<String, Option<Vec<u8>>>) {
        match &self.nodes[&inode] {
            Node::File { data, .. } => drop(tree.insert(path, Some(data.clone()))),
            Node::Directory { entries, .. } => {
                for (name, inode) in entries {
                    self.walk(*inode, format!("{path}/{name}"), tree);
                }
                tree.insert(path, None);
            }
        }
    }
}

impl Disk for SimDisk {
    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        let (directory, name) = state.locate(path)?;
        if state.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (entries, durable) = (Entries::new(), Entries::new());
        let inode = Some(state.add(Node::Directory { entries, durable, mode }));
        state.edit(vec![Edit { directory, name, inode }]);
        Ok(())
    }

    fn create_files(&self, paths: &[&Path], mode: u32) -> io::Result<Box<dyn NewFile + '_>> {
        let mut inodes = Vec::new();
        for path in paths {
            self.operation()?;
            let mut state = self.state();
            let (directory, name) = state.locate(path)?;
            if state.find(path).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = state.add(Node::File { data: Vec::new(), durable: Vec::new(), mode });
            state.edit(vec![Edit { directory, name, inode: Some(inode) }]);
            inodes.push(inode);
        }
        Ok(Box::new(SimFiles { disk: self, inodes, written: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        let moved = state.must_find(from)?;
        if let Some(taken) = state.find(to) {
            match state.entries(taken) {
                Some(entries) if entries.is_empty() => {}
                Some(_) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                None if state.entries(moved).is_some() => {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                None => {}
            }
        }
        let ((old, old_name), (new, name)) = (state.locate(from)?, state.locate(to)?);
        state.edit(vec![
            Edit { directory: old, name: old_name, inode: None },
            Edit { directory: new, name, inode: Some(moved) },
        ]);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        if !state.can_exchange {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (a, b) = (state.must_find(one)?, state.must_find(other)?);
        let ((one, one_name), (other, other_name)) = (state.locate(one)?, state.locate(other)?);
        state.edit(vec![
            Edit { directory: one, name: one_name, inode: Some(b) },
            Edit { directory: other, name: other_name, inode: Some(a) },
        ]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        let inode = state.must_find(path)?;
        if state.entries(inode).is_some() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (directory, name) = state.locate(path)?;
        state.edit(vec![Edit { directory, name, inode: None }]);
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        state.must_find(path)?;
        let (directory, name) = state.locate(path)?;
        state.edit(vec![Edit { directory, name, inode: None }]);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.state();
        let directory = state.must_find(path)?;
        let (synced, pending): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|group: &Vec<Edit>| group.iter().any(|edit| edit.directory == directory));
        state.pending = pending;
        for edit in synced.iter().flatten() {
            if let Some(Node::Directory { durable, .. }) = state.nodes.get_mut(&edit.directory) {
                match edit.inode {
                    Some(inode) => durable.insert(edit.name.clone(), inode),
                    None => durable.remove(&edit.name),
                };
            }
        }
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        self.operation()?;
        let state = self.state();
        let stat = |inode| {
            let (is_directory, mode) = match &state.nodes[&inode] {
                Node::Directory { mode, .. } => (true, *mode),
                Node::File { mode, .. } => (false, *mode),
            };
            Stat { identity: Identity { device: 0, inode }, is_directory, mode }
        };
        Ok(state.find(path).map(stat))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.operation()?;
        let state = self.state();
        match state.find(path).map(|inode| &state.nodes[&inode]) {
            None => Ok(None),
            Some(Node::File { data, .. }) => Ok(Some(data.clone())),
            Some(Node::Directory { .. }) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.operation()?;
        let state = self.state();
        let entries = state.entries(state.must_find(path)?).ok_or(io::ErrorKind::NotADirectory)?;
        Ok(entries.keys().cloned().collect())
    }

    fn adopt(&self, path: &Path, like: &Path) -> io::Result<()> {
        self.operation()?;
        let state = self.state();
        state.must_find(path).and_then(|_| state.must_find(like)).map(drop)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.operation()?;
        // One process has this disk: its locks keep nobody out.
        self.state().must_find(path)?;
        Ok(Box::new(Unlocked))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.operation()?;
        let state = self.state();
        Ok(state.find(path).is_some_and(|inode| state.locked.contains(&inode)))
    }
}

#[derive(Debug)]
struct Unlocked;

impl Lock for Unlocked {}

/// Files of a [`SimDisk`] that are being written.
struct SimFiles<'a> {
    disk: &'a SimDisk,
    inodes: Vec<u64>,
    written: usize,
}

impl SimFiles<'_> {
    fn each(&self, change: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) {
        let mut state = self.disk.state();
        for inode in &self.inodes {
            if let Some(Node::File { data, durable, .. }) = state.nodes.get_mut(inode) {
                change(data, durable);
            }
        }
    }
}

fn overwrite(data: &mut Vec<u8>, bytes: &[u8], offset: usize) {
    data.resize(data.len().max(offset + bytes.len()), 0);
    data[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Write for SimFiles<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.operation()?;
        let offset = self.written;
        self.each(|data, _| overwrite(data, bytes, offset));
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for SimFiles<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.operation()?;
        self.each(|data, _| overwrite(data, bytes, offset as usize));
        Ok(())
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        self.disk.operation()?;
        // Nothing is gained from 64 MB of zeros in memory.
        let length = length.min(64 << 10) as usize;
        self.each(|data, _| data.resize(data.len().max(length), 0));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.operation()?;
        self.each(|data, durable| durable.clone_from(data));
        Ok(())
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit.max(1)
    }
}
