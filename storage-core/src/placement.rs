//! Where objects live: weighted rendezvous hashing. It is a pure function of the name and the membership and uses
//! integers only, so that every node and every release finds the same order. `FORMAT.md` has the definition and test
//! vectors.
//!
//! Each node draws a number from the name and its store id. The nodes are ordered by `-log2(draw) / weight`, smallest
//! first. So each node gets a share of the objects in proportion to its weight, and a change of weights moves no more
//! objects than it must. Zones change the order only: the best node of every zone comes before the second of any.

use std::cmp::Ordering;

use crate::{ObjectName, membership::Member};

/// Number of fractional bits of logarithms.
const FRACTION: u32 = 40;
/// The table has the logarithms of 1 + i/1024. Values between them are interpolated.
const STEPS_LOG2: u32 = 10;
const STEPS: usize = 1 << STEPS_LOG2;
static LOG2: [u64; STEPS + 1] = log2_table();

/// All nodes, best first: the nodes that own objects, in an order that respects zones, then those that own none (weight
/// 0 or not accepting). Readers ask the nodes in this order; a writer that finds an owner down goes on to the next.
pub fn rank(name: &ObjectName, nodes: &[Member]) -> Vec<usize> {
    let draws = draws(name, nodes);
    let (mut owning, mut others): (Vec<Draw<'_>>, Vec<Draw<'_>>) =
        draws.into_iter().partition(|d| d.node.owns_objects());
    owning.sort_unstable_by(Draw::order);
    others.sort_unstable_by(Draw::order);
    let mut ranked = Vec::with_capacity(nodes.len());
    while !owning.is_empty() {
        // Each round takes the best node that is left of every zone, in the order of those nodes.
        let mut used: Vec<&str> = Vec::new();
        owning.retain(|draw| match draw.node.zone.as_deref() {
            Some(zone) if used.contains(&zone) => true,
            zone => {
                used.extend(zone);
                ranked.push(draw.index);
                false
            }
        });
    }
    ranked.extend(others.iter().map(|d| d.index));
    ranked
}

/// The nodes that an object belongs to: the first `copies` of [`rank`] that own objects. Finds them without ordering the
/// rest. Fewer if there are not enough nodes.
pub fn owners(name: &ObjectName, nodes: &[Member], copies: usize) -> Vec<usize> {
    let draws = draws(name, nodes);
    let mut owners: Vec<usize> = Vec::with_capacity(copies.min(nodes.len()));
    let mut used: Vec<&str> = Vec::new();
    while owners.len() < copies {
        let free = |d: &&Draw<'_>| d.node.owns_objects() && !owners.contains(&d.index);
        let in_new_zone = |d: &&Draw<'_>| d.node.zone.as_deref().is_none_or(|zone| !used.contains(&zone));
        match draws.iter().filter(free).filter(in_new_zone).min_by(|a, b| a.order(b)) {
            Some(best) => {
                used.extend(best.node.zone.as_deref());
                owners.push(best.index);
            }
            None if used.is_empty() => break,
            None => used.clear(),
        }
    }
    owners
}

struct Draw<'a> {
    index: usize,
    node: &'a Member,
    /// -log2 of the draw, in units of 2^-40. Above 0, at most 64.
    cost: u64,
}

impl Draw<'_> {
    /// Compares cost / weight without dividing, then the store id. Weight 0 counts as 1.
    fn order(&self, other: &Self) -> Ordering {
        let scaled = |cost: u64, weight: u32| u128::from(cost) * u128::from(weight.max(1));
        scaled(self.cost, other.node.weight)
            .cmp(&scaled(other.cost, self.node.weight))
            .then_with(|| self.node.store.cmp(&other.node.store))
            .then_with(|| self.index.cmp(&other.index))
    }
}

fn draws<'a>(name: &ObjectName, nodes: &'a [Member]) -> Vec<Draw<'a>> {
    let draw =
        |(index, node): (usize, &'a Member)| Draw { index, node, cost: cost(draw(name, node.store.uuid().as_bytes())) };
    nodes.iter().enumerate().map(draw).collect()
}

/// 64 bits from a name and a store. Names are uniform already. Three rounds of MurmurHash3's finalizer tie them to the
/// store at a hundredth of the cost of another cryptographic hash, which matters when 10,000 nodes are ranked.
fn draw(name: &ObjectName, store: &[u8; 16]) -> u64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ (x >> 33)
    };
    let [n0, n1, n2, n3] = words(name.as_bytes());
    let [s0, s1] = words(store);
    mix(mix(mix(n0 ^ s0) ^ n1 ^ s1) ^ n2 ^ n3)
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// -log2(draw / 2^64) in units of 2^-40, never 0.
fn cost(draw: u64) -> u64 {
    (64 << FRACTION) - log2(draw.max(1))
}

/// log2 in units of 2^-40, interpolated between table entries and rounded down.
fn log2(n: u64) -> u64 {
    let whole = u64::from(n.ilog2());
    // Of the bits after the leading one, ten choose the table's step and 32 more the place within it.
    let fraction = (n << n.leading_zeros()) << 1;
    let step = crate::units::usize_from(fraction >> (64 - STEPS_LOG2));
    let within = (fraction << STEPS_LOG2) >> 32;
    let at = |i: usize| *LOG2.get(i).expect("ten bits are below the table's 1025 entries");
    let (low, high) = (at(step), at(step + 1));
    (whole << FRACTION) + low + (((high - low) * within) >> 32)
}

/// floor(2^40 * log2(1 + i/1024)) for i in 0..=1024. Squaring gives one bit of the logarithm at a time.
const fn log2_table() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut i = 0;
    while i < STEPS {
        // In [1, 2) with 63 fractional bits.
        let mut x: u64 = ((STEPS + i) as u64) << (63 - STEPS_LOG2);
        let mut log: u64 = 0;
        let mut bit = 0;
        while bit < FRACTION {
            let square = (x as u128) * (x as u128);
            log <<= 1;
            let shift = if square >> 127 == 1 {
                log |= 1;
                64
            } else {
                63
            };
            #[expect(clippy::cast_possible_truncation, reason = "the square of [1, 2), halved where it reached 2")]
            {
                x = (square >> shift) as u64;
            }
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time; i < STEPS")]
        {
            table[i] = log;
        }
        i += 1;
    }
    table[STEPS] = 1 << FRACTION;
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, NodeId, Salt};

    fn name(n: u64) -> ObjectName {
        ObjectName::of(Kind::Chunk, Salt::SHARED, &n.to_le_bytes())
    }

    fn member(store: [u8; 16], weight: u32, zone: Option<&str>) -> Member {
        Member {
            node: NodeId::generate(),
            name: String::new(),
            store: uuid::Uuid::from_bytes(store).into(),
            address: String::new(),
            zone: zone.map(str::to_owned),
            weight,
            accepting: true,
            key_sha256: String::new(),
        }
    }

    fn node(id: u8, weight: u32, zone: Option<&str>) -> Member {
        let mut store = [0; 16];
        blake3::Hasher::new().update(&[id]).finalize_xof().fill(&mut store);
        member(store, weight, zone)
    }

    #[test]
    fn shares_follow_the_weights() {
        let nodes = [node(1, 100, None), node(2, 200, None), node(3, 700, None), node(4, 0, None)];
        let mut first = [0u64; 4];
        let count = 20_000;
        for n in 0..count {
            let winner = *owners(&name(n), &nodes, 1).first().expect("an owner");
            *first.get_mut(winner).expect("a node") += 1;
        }
        for (got, share) in first.iter().zip([10, 20, 70, 0]) {
            let wanted = count * share / 100;
            assert!(got.abs_diff(wanted) <= count / 100, "{got} instead of {wanted}");
        }
    }

    #[test]
    fn a_new_node_takes_its_share_and_moves_nothing_else() {
        let before: Vec<_> = (0..9).map(|id| node(id, 100, None)).collect();
        let mut after = before.clone();
        after.push(node(9, 100, None));
        let mut moved = 0;
        for n in 0..5000 {
            let (old, new) = (owners(&name(n), &before, 1), owners(&name(n), &after, 1));
            if old != new {
                assert_eq!(new, [9]);
                moved += 1;
            }
        }
        assert!((400..600).contains(&moved), "{moved} of 5000 moved, a tenth belongs to the tenth node");
    }

    #[test]
    fn owners_are_the_front_of_the_rank_and_every_zone_comes_before_a_second_node_of_one() {
        let zones = [Some("a"), Some("a"), Some("a"), Some("b"), None, Some("c"), None];
        let mut nodes: Vec<_> = zones.iter().zip(0..).map(|(zone, id)| node(id, 50 + u32::from(id), *zone)).collect();
        nodes.push(Member { accepting: false, ..node(7, 1000, Some("d")) });
        nodes.push(node(8, 0, Some("e")));
        for n in 0..500 {
            let ranked = rank(&name(n), &nodes);
            let mut all = ranked.clone();
            all.sort_unstable();
            assert_eq!(all, (0..nodes.len()).collect::<Vec<_>>());
            for copies in 0..=9 {
                let owners = owners(&name(n), &nodes, copies);
                assert_eq!(owners.len(), copies.min(7));
                assert_eq!(Some(owners.as_slice()), ranked.get(..copies.min(7)));
            }
            let a = |i: &&usize| nodes.get(**i).is_some_and(|n| n.zone.as_deref() == Some("a"));
            assert_eq!(ranked.iter().take(5).filter(a).count(), 1, "a, b, c and the two without a zone first");
        }
    }

    #[test]
    fn one_zone_for_all_does_not_block() {
        let nodes = [node(1, 1, Some("a")), node(2, 1, Some("a")), node(3, 1, Some("a"))];
        assert_eq!(owners(&name(1), &nodes, 2).len(), 2);
        assert_eq!(owners(&name(1), &nodes, 9).len(), 3);
        assert_eq!(owners(&name(1), &[], 2), Vec::<usize>::new());
    }

    #[test]
    fn the_table_is_the_logarithm_rounded_down() {
        // floor(2^40 * log2(1 + i/1024)), computed with 60 digits elsewhere.
        let vectors = [(0, 0), (1, 1_548_326_109), (512, 643_173_071_355), (1023, 1_098_736_897_615), (1024, 1 << 40)];
        for (i, log) in vectors {
            assert_eq!(LOG2.get(i), Some(&log), "{i}");
        }
        assert!(LOG2.is_sorted());
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 63), 63 << FRACTION);
        assert_eq!(cost(0), 64 << FRACTION);
        assert!(cost(u64::MAX) > 0);
    }

    fn rows(heading: &str) -> Vec<Vec<&'static str>> {
        let table = include_str!("../FORMAT.md").split(heading).nth(1).expect("the table").trim_start();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim_matches([' ', '`'])).collect()).collect()
    }

    #[test]
    fn the_vectors_in_the_document_hold() {
        let store = |text: &str| [u8::from_str_radix(text, 16).expect("a byte"); 16];
        let draws = rows("| name | store | draw | cost |");
        for row in &draws {
            let [name, at, number, price] = row.as_slice() else { panic!("{row:?}") };
            let drawn = draw(&name.parse().expect("a name"), &store(at));
            assert_eq!((format!("{drawn:016x}"), cost(drawn).to_string()), ((*number).to_owned(), (*price).to_owned()));
        }
        assert_eq!(draws.len(), 15);

        let ids = ["11", "22", "33", "44", "55"];
        let weights = [100, 100, 300, 100, 0];
        let zones = [None, Some("a"), Some("a"), Some("b"), Some("c")];
        let nodes: Vec<_> = ids.iter().zip(weights).zip(zones).map(|((id, w), z)| member(store(id), w, z)).collect();
        let ranks = rows("| name | rank |");
        for row in &ranks {
            let [name, order] = row.as_slice() else { panic!("{row:?}") };
            let ranked = rank(&name.parse().expect("a name"), &nodes);
            let ranked: Vec<&str> = ranked.iter().filter_map(|i| ids.get(*i).copied()).collect();
            assert_eq!(ranked.join(", "), *order, "{name}");
        }
        assert_eq!(ranks.len(), 3);
    }
}
