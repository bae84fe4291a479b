//! Where each field lies. All integers are little endian (bbolt writes the host's order; etcd's files come from such
//! hosts).

/// Number of a page: its offset divided by the page size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

/// Default size of a page in bytes. The reader takes what the file says.
pub const PAGE_BYTES: usize = 4096;
/// Smallest and largest page sizes that are believed.
pub const PAGE_BYTES_RANGE: std::ops::RangeInclusive<usize> = 1024..=1024 << 14;

/// Page header: id u64, flags u16, count u16, overflow u32.
pub mod page {
    /// Own number.
    pub const ID: usize = 0;
    /// Exactly one of the kinds below.
    pub const FLAGS: usize = ID + 8;
    /// Elements in the body.
    pub const COUNT: usize = FLAGS + 2;
    /// Further pages that belong to this one.
    pub const OVERFLOW: usize = COUNT + 2;
    /// Size of the header.
    pub const BODY: usize = OVERFLOW + 4;

    /// Children and their first keys.
    pub const BRANCH: u16 = 0x01;
    /// Keys and values.
    pub const LEAF: u16 = 0x02;
    /// Pages 0 and 1.
    pub const META: u16 = 0x04;
    /// Numbers of free pages.
    pub const FREELIST: u16 = 0x10;
}

/// Body of a meta page.
pub mod meta {
    use super::page;

    /// Tells the format.
    pub const MAGIC: usize = page::BODY;
    /// 2.
    pub const VERSION: usize = MAGIC + 4;
    /// Bytes per page.
    pub const PAGE_SIZE: usize = VERSION + 4;
    /// 0.
    pub const FLAGS: usize = PAGE_SIZE + 4;
    /// Top page of the root bucket.
    pub const ROOT: usize = FLAGS + 4;
    /// Sequence of the root bucket.
    pub const SEQUENCE: usize = ROOT + 8;
    /// Page of the freelist, or all ones.
    pub const FREELIST: usize = SEQUENCE + 8;
    /// First page that was never used.
    pub const HIGH_WATER: usize = FREELIST + 8;
    /// Number of the transaction that wrote it.
    pub const TXID: usize = HIGH_WATER + 8;
    /// FNV-1a over the body before it.
    pub const CHECKSUM: usize = TXID + 8;
    /// Where the meta ends.
    pub const END: usize = CHECKSUM + 8;

    /// Value of the magic.
    pub const MAGIC_VALUE: u32 = 0xED0C_DAED;
    /// Value of the version.
    pub const VERSION_VALUE: u32 = 2;
    /// No freelist in the file.
    pub const NO_FREELIST: u64 = u64::MAX;
}

/// Element of a leaf: flags u32, pos u32, key size u32, value size u32; `pos` counts from the element's own start.
pub mod leaf {
    /// 1: the value is a bucket.
    pub const FLAGS: usize = 0;
    /// Where the key begins.
    pub const POS: usize = FLAGS + 4;
    /// Length of the key.
    pub const KEY: usize = POS + 4;
    /// Length of the value, which follows the key.
    pub const VALUE: usize = KEY + 4;
    /// Size of the element.
    pub const END: usize = VALUE + 4;

    /// Flag of a bucket.
    pub const BUCKET: u32 = 1;
}

/// Element of a branch: pos u32, key size u32, child u64.
pub mod branch {
    /// Where the key begins.
    pub const POS: usize = 0;
    /// Length of the key.
    pub const KEY: usize = POS + 4;
    /// Page of the child.
    pub const CHILD: usize = KEY + 4;
    /// Size of the element.
    pub const END: usize = CHILD + 8;
}

/// Value of a bucket: root page u64 (0: the page follows inside of the value), sequence u64.
pub mod bucket {
    /// Top page.
    pub const ROOT: usize = 0;
    /// Counter that nobody in etcd uses.
    pub const SEQUENCE: usize = ROOT + 8;
    /// Size without an inline page.
    pub const END: usize = SEQUENCE + 8;
}

/// Longest key that bbolt takes, in bytes.
pub const KEY_BYTES_MAX: usize = 32_768;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// Most elements of one page: 0xFFFF has another meaning in a freelist.
pub const COUNT_MAX: usize = 0xFFFE;

/// FNV-1a, 64 bits.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The u16 at `at`, if the bytes reach so far.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The u32 at `at`, if the bytes reach so far.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The u64 at `at`, if the bytes reach so far.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
