//! Boot orders: in which order the last boots of a version first read its chunks. A picture shows it, and later starts can
//! have the chunks brought in this order before their guests ask for them.
//!
//! Every boot is merged into one order, which is all that is kept. A chunk has its mean place over the boots that read it.
//! After [`BOOTS_MAX`] boots a new one counts for one in [`BOOTS_MAX`], so that older ones fade, and a chunk that none of the
//! last [`BOOTS_MAX`] boots read is gone. So a version needs about three bytes a chunk, whatever the number of its boots.

use std::collections::HashMap;

use muster_api::node_protocol::boot::{BOOT_CHUNKS_MAX, BootReport};

/// Number of boots that an order is made from, at most.
pub const BOOTS_MAX: u64 = 8;
/// Mean places are kept in parts of this number to a place: means of few boots are exact enough to sort by, and the step from
/// one place to the next still takes one byte.
const PARTS: i64 = 8;
/// First byte of an encoded order.
const FORMAT: u8 = 1;
/// Low bits of an encoded step that have the number of boots that read the chunk, less one.
const OF_BITS: u32 = BOOTS_MAX.trailing_zeros();

/// The merged order of the last boots of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder {
    boots: u64,
    /// By mean place, then by number. No number comes twice.
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    number: u32,
    /// Mean place over the boots that read it, in [`PARTS`].
    place: i64,
    /// How many of the last boots read it, from 1 to [`BOOTS_MAX`].
    of: u64,
}

/// Why the list of a report is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// It is empty or too long.
    #[error("{0} chunks, expected 1 to {BOOT_CHUNKS_MAX}")]
    Length(usize),
    /// It names a chunk that the version does not have.
    #[error("chunk {chunk}, the version has {chunks} chunks, numbered from 0")]
    NoSuchChunk {
        /// The number in the list.
        chunk: u32,
        /// How many chunks the version has.
        chunks: u64,
    },
    /// It names a chunk twice.
    #[error("chunk {0} comes twice")]
    Twice(u32),
}

/// Why a text is no encoded order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no encoded boot order")]
pub struct BadEncoding;

/// The places of the chunks of a report, checked against the version that has `chunks` chunks.
///
/// # Errors
/// The list names a chunk that there is not or one twice, or it is empty or too long.
fn places(report: &BootReport, chunks: u64) -> Result<HashMap<u32, i64>, BadList> {
    let listed = report.chunks.len();
    if listed == 0 || listed > BOOT_CHUNKS_MAX {
        return Err(BadList::Length(listed));
    }
    let mut places = HashMap::with_capacity(listed);
    for (place, chunk) in (0..).step_by(PARTS.unsigned_abs().try_into().expect("small")).zip(&report.chunks) {
        if u64::from(*chunk) >= chunks {
            return Err(BadList::NoSuchChunk { chunk: *chunk, chunks });
        }
        if places.insert(*chunk, place).is_some() {
            return Err(BadList::Twice(*chunk));
        }
    }
    Ok(places)
}

impl BootOrder {
    /// Adds a boot of a version that has `chunks` chunks.
    ///
    /// # Errors
    /// The report names a chunk that there is not or one twice, or it is empty or too long. Nothing changed then.
    pub fn add(&mut self, report: &BootReport, chunks: u64) -> Result<(), BadList> {
        let mut places = places(report, chunks)?;
        let is_full = self.boots >= BOOTS_MAX;
        self.chunks.retain_mut(|chunk| {
            match places.remove(&chunk.number) {
                Some(place) => {
                    chunk.of = (chunk.of + 1).min(BOOTS_MAX);
                    chunk.place += (place - chunk.place) / i64::try_from(chunk.of).expect("small");
                }
                // An old boot makes room for this one, and it may be one that read the chunk.
                None if is_full => chunk.of -= 1,
                None => {}
            }
            chunk.of > 0
        });
        self.chunks.extend(places.into_iter().map(|(number, place)| Chunk { number, place, of: 1 }));
        self.chunks.sort_unstable_by_key(|chunk| (chunk.place, chunk.number));
        self.chunks.truncate(BOOT_CHUNKS_MAX);
        self.boots = (self.boots + 1).min(BOOTS_MAX);
        Ok(())
    }

    /// Number of boots that it is made from, at most [`BOOTS_MAX`].
    #[must_use]
    pub const fn boots(&self) -> u64 {
        self.boots
    }

    /// The chunks that they read, in the order in which they read them.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = u64> {
        self.chunks.iter().map(|chunk| chunk.number.into())
    }

    /// The chunks that at least half of them read, in the same order. One boot that read the whole disk is no sign of the next.
    pub fn likely(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().filter(|chunk| chunk.of * 2 >= self.boots).map(|chunk| chunk.number.into())
    }

    /// The chunks as text, for [`Self::decode`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![FORMAT];
        let (mut number, mut place) = (0, 0);
        for chunk in &self.chunks {
            let step = i64::from(chunk.number) - number;
            // Chunks near each other are read one after the other, so the step is small in either direction.
            push(&mut bytes, (step << 1 ^ step >> 63).cast_unsigned());
            push(&mut bytes, (chunk.place - place).unsigned_abs() << OF_BITS | (chunk.of - 1));
            (number, place) = (chunk.number.into(), chunk.place);
        }
        hex::encode(bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`BadEncoding`] if it did not write that.
    pub fn decode(boots: u64, text: &str) -> Result<Self, BadEncoding> {
        let bytes = hex::decode(text).map_err(|_| BadEncoding)?;
        let (format, mut rest) = bytes.split_first().ok_or(BadEncoding)?;
        let mut order = Self { boots: boots.min(BOOTS_MAX), chunks: Vec::new() };
        let (mut number, mut place) = (0i64, 0i64);
        while !rest.is_empty() {
            let step = take(&mut rest)?;
            let step = (step >> 1).cast_signed() ^ -(step & 1).cast_signed();
            let (more, of) = {
                let word = take(&mut rest)?;
                ((word >> OF_BITS).cast_signed(), (word & (BOOTS_MAX - 1)) + 1)
            };
            number = number.checked_add(step).ok_or(BadEncoding)?;
            place = place.checked_add(more).ok_or(BadEncoding)?;
            order.chunks.push(Chunk { number: u32::try_from(number).map_err(|_| BadEncoding)?, place, of });
        }
        if *format != FORMAT || order.chunks.len() > BOOT_CHUNKS_MAX { Err(BadEncoding) } else { Ok(order) }
    }
}

/// Appends a number, seven bits in each byte, the lowest first. All bytes but the last have their highest bit set.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
}

/// Takes a number off the front.
fn take(bytes: &mut &[u8]) -> Result<u64, BadEncoding> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(BadEncoding)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadEncoding)
}

#[cfg(test)]
mod tests {
    use muster_api::{DiskId, VersionId};
    use proptest::prelude::*;
    use storage_core::units::u64_from;

    use super::*;

    fn report(chunks: &[u32]) -> BootReport {
        let (disk, version) = (DiskId::generate(), VersionId::generate());
        BootReport { disk, version, generation: 1, boot: 1, chunks: chunks.to_vec() }
    }

    fn merged(boots: &[&[u32]]) -> BootOrder {
        let mut order = BootOrder::default();
        for boot in boots {
            order.add(&report(boot), 1 << 20).expect("a good list");
        }
        order
    }

    fn chunks(order: &BootOrder) -> Vec<u64> {
        order.chunks().collect()
    }

    #[test]
    fn a_chunk_has_its_mean_place_over_the_boots_that_read_it() {
        // Places: 7 at 0, 1 and 2; 8 at 1, 0 and 0; 9 at 2 and 1; 5 at 3, in one boot only.
        let order = merged(&[&[7, 8, 9, 5], &[8, 7], &[8, 9, 7]]);
        assert_eq!((order.boots(), chunks(&order)), (3, vec![8, 7, 9, 5]));
        assert_eq!(order.likely().collect::<Vec<_>>(), [8, 7, 9], "most boots do without 5");
        assert_eq!(chunks(&merged(&[&[3, 1, 2]])), [3, 1, 2], "one boot is as it was");
    }

    #[test]
    fn what_none_of_the_last_boots_read_is_forgotten() {
        let mut order = merged(&[&[1, 2, 3][..]; 8]);
        for boot in 1..=8 {
            assert!(chunks(&order).contains(&2), "before boot {boot} without it");
            order.add(&report(&[3, 1]), 10).expect("a good list");
        }
        assert_eq!((order.boots(), chunks(&order)), (8, vec![1, 3]));
    }

    #[test]
    fn a_chunk_that_every_other_boot_reads_stays() {
        let mut order = merged(&[&[1, 2][..]; 8]);
        for _ in 0..20 {
            order.add(&report(&[1]), 10).expect("a good list");
            order.add(&report(&[1, 2]), 10).expect("a good list");
        }
        assert_eq!(chunks(&order), [1, 2]);
    }

    #[test]
    fn a_list_that_does_not_fit_its_version_changes_nothing() {
        let long: Vec<u32> = (0..=u32::try_from(BOOT_CHUNKS_MAX).expect("small")).collect();
        let before = merged(&[&[1, 0]]);
        for (list, bad) in [
            (&[][..], BadList::Length(0)),
            (&long[..], BadList::Length(long.len())),
            (&[1, 2, 100][..], BadList::NoSuchChunk { chunk: 100, chunks: 100 }),
            (&[1, 2, 1][..], BadList::Twice(1)),
        ] {
            let mut order = before.clone();
            assert_eq!(order.add(&report(list), 100), Err(bad));
            assert_eq!(order, before);
        }
    }

    #[test]
    fn an_order_never_takes_more_than_its_bound() {
        let most = u32::try_from(BOOT_CHUNKS_MAX).expect("small");
        let mut order = BootOrder::default();
        for boot in 0..10 {
            let list: Vec<u32> = (0..most).map(|n| n * 7 + boot * 1_000_003).collect();
            order.add(&report(&list), u64::from(u32::MAX)).expect("a good list");
        }
        assert_eq!(order.chunks().len(), BOOT_CHUNKS_MAX);
        let bytes = order.encode().len();
        assert!(bytes < 1 << 20, "{bytes} bytes");
    }

    #[test]
    fn a_boot_of_debian_takes_little() {
        // 405 chunks, mostly in runs.
        let list: Vec<u32> = (0..405).map(|n| n / 9 * 37 % 1900 + n % 9).collect();
        let list: Vec<u32> =
            list.iter().enumerate().filter(|(n, c)| !list[..*n].contains(c)).map(|(_, c)| *c).collect();
        let bytes = merged(&[&list[..]; 8]).encode().len();
        assert!(bytes < 5 * list.len(), "{bytes} bytes for {} chunks", list.len());
    }

    #[test]
    fn texts_that_are_no_order_are_refused() {
        for text in ["", "zz", "02", "0180", "01808080808080808080808001", "01ffffffffffffffffff7f00"] {
            assert_eq!(BootOrder::decode(1, text), Err(BadEncoding), "{text}");
        }
        assert_eq!(BootOrder::decode(0, "01"), Ok(BootOrder::default()));
    }

    #[test]
    fn the_encoding_stays_as_it_was() {
        let order = merged(&[&[3, 1, 300], &[1, 3]]);
        assert_eq!(order.encode(), "0102210401d20460");
        assert_eq!(BootOrder::decode(2, &order.encode()), Ok(order));
    }

    proptest! {
        #[test]
        fn an_order_is_read_as_it_was_written(boots in proptest::collection::vec(
            proptest::collection::hash_set(0..5000u32, 1..200), 1..12)
        ) {
            let mut order = BootOrder::default();
            for boot in &boots {
                order.add(&report(&boot.iter().copied().collect::<Vec<_>>()), 5000).expect("a good list");
            }
            prop_assert_eq!(order.boots(), u64_from(boots.len()).min(BOOTS_MAX));
            let all: std::collections::HashSet<u64> = order.chunks().collect();
            prop_assert_eq!(all.len(), order.chunks().len(), "none comes twice");
            for boot in boots.iter().rev().take(1) {
                prop_assert!(boot.iter().all(|chunk| all.contains(&u64::from(*chunk))));
            }
            prop_assert_eq!(BootOrder::decode(order.boots(), &order.encode()), Ok(order));
        }
    }
}
