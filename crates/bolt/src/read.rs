//! A file as it is opened: the newest valid meta page, and pages that are checked before they are believed.

use std::io;

use crate::error::BoltError;
use crate::layout::{PAGE_BYTES_RANGE, PageId, fnv, leaf, meta, page, u16_at, u32_at, u64_at};
use crate::walk::{Items, Top};

/// Positioned reads; no position is kept.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The bytes are not all there, or the system refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The system does not tell.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for Box<dyn milepost_env::File> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if (**self).read_at(buffer, offset)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.len()
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }
}

/// A bbolt database, opened for reading. Buckets inside of buckets are not looked into: etcd has none.
#[derive(Debug)]
pub struct File<R> {
    source: R,
    pub(crate) page_bytes: usize,
    pub(crate) root: PageId,
    pub(crate) freelist: Option<PageId>,
    pub(crate) high_water: PageId,
    txid: u64,
}

/// What a meta page says.
struct Meta {
    page_bytes: usize,
    root: PageId,
    freelist: u64,
    high_water: PageId,
    txid: u64,
}

impl<R: ReadAt> File<R> {
    /// Opens the newest state that a valid meta page describes.
    ///
    /// # Errors
    /// Not such a file, damaged in both meta pages, cut off, or not readable.
    pub fn open(source: R) -> Result<Self, BoltError> {
        let first = read_meta(&source, 0)?;
        let sizes: Vec<u64> = match &first {
            Ok(meta) => vec![meta.page_bytes as u64],
            // The first page is broken, so the size of a page is not known: the second lies at one of these offsets.
            Err(_) => (0..15).map(|power| 1024 << power).collect(),
        };
        let mut newest = first;
        for size in sizes {
            if let Ok(second) = read_meta(&source, size)?
                && second.page_bytes as u64 == size
                && newest.as_ref().map_or(true, |newest| second.txid > newest.txid)
            {
                newest = Ok(second);
            }
        }
        let meta = newest.map_err(BoltError::NoMeta)?;
        let length = source.length().map_err(|source| BoltError::Read { offset: 0, length: 0, source })?;
        let needed = meta.high_water.0.checked_mul(meta.page_bytes as u64);
        if needed.is_none_or(|needed| length < needed) {
            return Err(BoltError::Short { length, pages: meta.high_water.0, page_bytes: meta.page_bytes });
        }
        Ok(Self {
            source,
            page_bytes: meta.page_bytes,
            root: meta.root,
            freelist: (meta.freelist != meta::NO_FREELIST).then_some(PageId(meta.freelist)),
            high_water: meta.high_water,
            txid: meta.txid,
        })
    }

    /// The transaction that wrote this state.
    #[must_use]
    pub const fn txid(&self) -> u64 {
        self.txid
    }

    /// Size of a page in bytes.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        self.page_bytes as u64
    }

    /// Bytes of the file that belong to this state.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.high_water.0 * self.page_bytes as u64
    }

    /// The names of all buckets, ascending.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, BoltError> {
        Items::new(self, Top::Page(self.root)).map(|item| item.map(|(name, _)| name)).collect()
    }

    /// The items of the bucket `name` in ascending order of their keys; `None` if there is no such bucket.
    ///
    /// # Errors
    /// A page on the way to the bucket is damaged.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Items<'_, R>>, BoltError> {
        for item in Items::new(self, Top::Page(self.root)) {
            let (found, value) = item?;
            if found == name {
                return Ok(Some(Items::new(self, self.top(value)?)));
            }
        }
        Ok(None)
    }

    /// Where the tree of a bucket with this value begins.
    pub(crate) fn top(&self, value: Vec<u8>) -> Result<Top, BoltError> {
        use crate::layout::bucket;
        let damage = |what| BoltError::Page { page: self.root, what };
        match u64_at(&value, bucket::ROOT) {
            Some(0) => Ok(Top::Inline(value.get(bucket::END..).ok_or(damage("a bucket's value is cut off"))?.to_vec())),
            Some(root) if value.len() >= bucket::END => Ok(Top::Page(PageId(root))),
            _ => Err(damage("a bucket's value is cut off")),
        }
    }

    /// The page `id` with its overflow: it knows its own number, is of one of `kinds`, and lies within the file.
    pub(crate) fn page(&self, id: PageId, kinds: &[u16]) -> Result<Page, BoltError> {
        let damage = |what| BoltError::Page { page: id, what };
        if id.0 < 2 || id.0 >= self.high_water.0 {
            return Err(damage("its number is beyond the end of the database"));
        }
        let offset = id.0 * self.page_bytes as u64;
        let mut header = [0; page::BODY];
        self.read(offset, &mut header)?;
        let own = u64_at(&header, page::ID);
        if own != Some(id.0) {
            return Err(damage("it bears another page's number"));
        }
        let overflow = u32_at(&header, page::OVERFLOW).unwrap_or(u32::MAX);
        if id.0 + u64::from(overflow) >= self.high_water.0 {
            return Err(damage("its overflow reaches beyond the end of the database"));
        }
        let mut bytes = vec![0; (1 + overflow as usize) * self.page_bytes];
        self.read(offset, &mut bytes)?;
        let page = Page { id, bytes };
        if !kinds.contains(&page.kind()) {
            return Err(damage("it is of another kind than the page that points to it says"));
        }
        Ok(page)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BoltError> {
        let length = buffer.len();
        self.source.read_at(offset, buffer).map_err(|source| BoltError::Read { offset, length, source })
    }
}

/// The meta page at `offset`, or why it is none. The outer error is the system's.
fn read_meta<R: ReadAt>(source: &R, offset: u64) -> Result<Result<Meta, &'static str>, BoltError> {
    let mut bytes = [0; meta::END];
    match source.read_at(offset, &mut bytes) {
        Ok(()) => Ok(parse_meta(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err("the file is too short")),
        Err(source) => Err(BoltError::Read { offset, length: meta::END, source }),
    }
}

fn parse_meta(bytes: &[u8]) -> Result<Meta, &'static str> {
    let small = |at| u32_at(bytes, at).ok_or("the file is too short");
    let large = |at| u64_at(bytes, at).ok_or("the file is too short");
    if small(meta::MAGIC)? != meta::MAGIC_VALUE {
        return Err("the magic number is another");
    }
    if small(meta::VERSION)? != meta::VERSION_VALUE {
        return Err("the format's version is another than 2");
    }
    if fnv(bytes.get(meta::MAGIC..meta::CHECKSUM).unwrap_or_default()) != large(meta::CHECKSUM)? {
        return Err("the checksum is wrong");
    }
    let page_bytes = small(meta::PAGE_SIZE)? as usize;
    if !PAGE_BYTES_RANGE.contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err("the page size is impossible");
    }
    Ok(Meta {
        page_bytes,
        root: PageId(large(meta::ROOT)?),
        freelist: large(meta::FREELIST)?,
        high_water: PageId(large(meta::HIGH_WATER)?),
        txid: large(meta::TXID)?,
    })
}

/// A page whose header has been checked.
#[derive(Debug)]
pub struct Page {
    pub id: PageId,
    pub bytes: Vec<u8>,
}

impl Page {
    pub fn kind(&self) -> u16 {
        u16_at(&self.bytes, page::FLAGS).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        usize::from(u16_at(&self.bytes, page::COUNT).unwrap_or_default())
    }

    pub fn pages(&self) -> u64 {
        1 + u64::from(u32_at(&self.bytes, page::OVERFLOW).unwrap_or_default())
    }

    /// First key and page of a branch's child.
    pub fn child(&self, number: usize) -> Result<(&[u8], PageId), BoltError> {
        use crate::layout::branch;
        let at = page::BODY + number * branch::END;
        let child = || {
            let pos = at + u32_at(&self.bytes, at + branch::POS)? as usize;
            let key = u32_at(&self.bytes, at + branch::KEY)? as usize;
            Some((self.bytes.get(pos..pos.checked_add(key)?)?, PageId(u64_at(&self.bytes, at + branch::CHILD)?)))
        };
        child().ok_or(BoltError::Page { page: self.id, what: "a child lies outside of it" })
    }

    /// Flags, key and value of a leaf's element.
    pub fn element(&self, number: usize) -> Result<(u32, &[u8], &[u8]), BoltError> {
        let at = page::BODY + number * leaf::END;
        let element = || {
            let flags = u32_at(&self.bytes, at + leaf::FLAGS)?;
            let pos = at + u32_at(&self.bytes, at + leaf::POS)? as usize;
            let middle = pos.checked_add(u32_at(&self.bytes, at + leaf::KEY)? as usize)?;
            let end = middle.checked_add(u32_at(&self.bytes, at + leaf::VALUE)? as usize)?;
            Some((flags, self.bytes.get(pos..middle)?, self.bytes.get(middle..end)?))
        };
        element().ok_or(BoltError::Page { page: self.id, what: "an element lies outside of it" })
    }
}
