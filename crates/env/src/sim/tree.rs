//! Names: what programs see, and which changes of names the disk holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};

use crate::rng::Rng;
use crate::sim::content::Content;
use crate::sim::fault::CrashReport;

pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 0;

/// A directory's names.
type Names = BTreeMap<OsString, Inode>;

#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Dir { seen: Names, durable: Names },
}

/// One atomic change of names: each (directory, name) now means this inode, or nothing.
type NameChange = Vec<(Inode, OsString, Option<Inode>)>;

/// The tree of files. Absolute and relative paths start at the same root.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next_inode: Inode,
    /// Changes of names since their directories were synced, oldest first.
    unsynced: Vec<NameChange>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Dir { seen: Names::new(), durable: Names::new() };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next_inode: ROOT + 1, unsynced: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for name in names(path) {
            at = *self.seen(at)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn content(&self, inode: Inode) -> io::Result<&Content> {
        match self.nodes.get(&inode) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir { .. }) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn content_mut(&mut self, inode: Inode) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir { .. }) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Bytes taken by all files, removed ones that nobody has forgotten yet included.
    pub(super) fn allocated(&self) -> u64 {
        let files =
            self.nodes.values().map(|node| if let Node::File(content) = node { content.allocated() } else { 0 });
        files.sum()
    }

    /// Frees files that have no name left, on the platter or off, and are not in `open`.
    pub(super) fn forget_nameless(&mut self, open: &BTreeMap<Inode, u64>) {
        let mut reached: BTreeSet<Inode> = open.keys().copied().collect();
        reached.insert(ROOT);
        reached.extend(self.unsynced.iter().flatten().filter_map(|(_, _, inode)| *inode));
        let mut queue: Vec<Inode> = reached.iter().copied().collect();
        while let Some(inode) = queue.pop() {
            if let Some(Node::Dir { seen, durable }) = self.nodes.get(&inode) {
                queue.extend(seen.values().chain(durable.values()).filter(|&&child| reached.insert(child)));
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = self.seen(self.find(path)?)?;
        Ok(names.keys().filter_map(|name| name.to_str().map(str::to_owned)).collect())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let (dir, name) = self.place(path)?;
        let inode = self.add(Node::File(Content::default()));
        self.change(vec![(dir, name, Some(inode))]);
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            at = match self.seen(at)?.get(&name) {
                Some(&inode) => inode,
                None => {
                    let inode = self.add(Node::Dir { seen: Names::new(), durable: Names::new() });
                    self.change(vec![(at, name, Some(inode))]);
                    inode
                }
            };
        }
        self.seen(at).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if let Some(&replaced) = self.seen(to_dir)?.get(&to_name)
            && let Ok(names) = self.seen(replaced)
            && !names.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(vec![(from_dir, from_name, None), (to_dir, to_name, Some(inode))]);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.content(self.find(path)?)?;
        let (dir, name) = self.place(path)?;
        self.change(vec![(dir, name, None)]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inner: Vec<OsString> = self.seen(self.find(path)?)?.keys().cloned().collect();
        for name in inner {
            let path = path.join(name);
            match self.remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => self.remove_dir_all(&path)?,
                result => result?,
            }
        }
        let (dir, name) = self.place(path)?;
        self.change(vec![(dir, name, None)]);
        Ok(())
    }

    /// Makes the changes in `path` durable, with those that they build on.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut synced = BTreeSet::from([self.find(path)?]);
        self.seen(self.find(path)?)?;
        // A rename between two directories drags the other directory's earlier changes along, so go backwards.
        let mut keep = Vec::new();
        let mut apply = Vec::new();
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if change.iter().any(|(dir, _, _)| synced.contains(dir)) {
                synced.extend(change.iter().map(|(dir, _, _)| *dir));
                apply.push(change);
            } else {
                keep.push(change);
            }
        }
        keep.reverse();
        self.unsynced = keep;
        for change in apply.into_iter().rev() {
            self.make_durable(change);
        }
        Ok(())
    }

    /// What a power cut leaves: of each directory's unsynced changes a prefix, and of each file what
    /// [`Content::crash`] says. Directories that share a rename lose and keep together.
    pub(super) fn crash(&mut self, rng: &mut dyn Rng, report: &mut CrashReport) {
        for group in self.unsynced_groups() {
            let kept = rng.below(group.len() as u64 + 1) as usize;
            report.names_kept += kept as u64;
            report.names_dropped += (group.len() - kept) as u64;
            for change in group.into_iter().take(kept) {
                self.make_durable(change);
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content) => content.crash(rng, report),
                Node::Dir { seen, durable } => seen.clone_from(durable),
            }
        }
        self.forget_nameless(&BTreeMap::new());
    }

    fn unsynced_groups(&mut self) -> Vec<Vec<NameChange>> {
        let mut groups: Vec<(BTreeSet<Inode>, Vec<NameChange>)> = Vec::new();
        for change in std::mem::take(&mut self.unsynced) {
            let mut dirs: BTreeSet<Inode> = change.iter().map(|(dir, _, _)| *dir).collect();
            let mut changes = Vec::new();
            let (touched, rest): (Vec<_>, Vec<_>) =
                groups.into_iter().partition(|(group, _)| !group.is_disjoint(&dirs));
            for (group, earlier) in touched {
                dirs.extend(group);
                changes.extend(earlier);
            }
            changes.push(change);
            groups = rest;
            groups.push((dirs, changes));
        }
        groups.into_iter().map(|(_, changes)| changes).collect()
    }

    fn seen(&self, inode: Inode) -> io::Result<&Names> {
        match self.nodes.get(&inode) {
            Some(Node::Dir { seen, .. }) => Ok(seen),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory that holds, or would hold, the last name of `path`.
    fn place(&self, path: &Path) -> io::Result<(Inode, OsString)> {
        let mut names = names(path);
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for name in names {
            at = *self.seen(at)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.seen(at)?;
        Ok((at, last))
    }

    fn add(&mut self, node: Node) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        inode
    }

    fn change(&mut self, change: NameChange) {
        for (dir, name, inode) in &change {
            if let Some(Node::Dir { seen, .. }) = self.nodes.get_mut(dir) {
                set(seen, name, *inode);
            }
        }
        self.unsynced.push(change);
    }

    fn make_durable(&mut self, change: NameChange) {
        for (dir, name, inode) in change {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(&dir) {
                set(durable, &name, inode);
            }
        }
    }
}

fn set(names: &mut Names, name: &OsString, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name.clone(), inode),
        None => names.remove(name),
    };
}

fn names(path: &Path) -> Vec<OsString> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    });
    normal.collect()
}
