//! The algorithm: a heap of zones, and in each zone a heap of nodes. Placing a member takes one step in each of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use muster_api::{NodeId, deployment::PlacementPolicy};
use storage_core::units::u64_from;

use super::{
    Demand, NodeView, Problem, Reason, Solution,
    filter::{full, never},
};

/// Finds a node for each member. The head of `scheduler/mod.rs` says what it promises.
#[must_use]
pub fn place(problem: &Problem) -> Solution {
    let demand = &problem.demand;
    let mut refusals: Vec<(NodeId, Reason)> = Vec::new();
    let (mut candidates, mut silent) = (Vec::new(), Vec::new());
    for node in &problem.nodes {
        match never(node, demand) {
            None => candidates.push(Candidate { node, added: 0 }),
            Some(Reason::HypervisorSilent) => silent.push(Candidate { node, added: 0 }),
            Some(reason) => refusals.push((node.id, reason)),
        }
    }
    let places = choose(&mut candidates, demand, problem.count);
    let unplaced = problem.count - u64_from(places.len());
    let waiting = u64_from(choose(&mut silent, demand, unplaced).len());
    if unplaced > 0 {
        for candidate in &candidates {
            let reason = full(candidate.node, candidate.added, demand);
            refusals.push((candidate.node.id, reason.expect("a node with room would have taken another member")));
        }
    }
    // A node that would be too full even so is not waited for, and tells the other reason.
    let silence = |node| full(node, 0, demand).filter(|_| unplaced > 0).unwrap_or(Reason::HypervisorSilent);
    refusals.extend(silent.iter().map(|candidate| (candidate.node.id, silence(candidate.node))));
    refusals.sort_unstable();
    let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
    for (_, reason) in &refusals {
        *reasons.entry(*reason).or_default() += 1;
    }
    Solution { places, unplaced, waiting, reasons, refusals }
}

fn choose(candidates: &mut [Candidate<'_>], demand: &Demand, count: u64) -> Vec<NodeId> {
    match demand.policy {
        PlacementPolicy::Spread => spread(candidates, demand, count),
        PlacementPolicy::Pack => pack(candidates, demand, count),
    }
}

/// Members of the deployment, instances of all deployments, free memory, and the id for nodes that are equal otherwise.
type Load = (u64, u64, Reverse<u64>, NodeId);

struct Candidate<'a> {
    node: &'a NodeView,
    added: u64,
}

impl Candidate<'_> {
    /// `spread` takes the node with the smallest load.
    fn load(&self) -> Load {
        (
            self.node.members + self.added,
            self.node.instances + self.added,
            Reverse(self.node.free_memory_bytes),
            self.node.id,
        )
    }
}

fn spread(candidates: &mut [Candidate<'_>], demand: &Demand, count: u64) -> Vec<NodeId> {
    let mut zones: BTreeMap<Option<&str>, Zone> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let zone = zones.entry(candidate.node.zone.as_deref()).or_default();
        zone.members += candidate.node.members;
        zone.instances += candidate.node.instances;
        if full(candidate.node, 0, demand).is_none() {
            zone.nodes.push(Reverse((candidate.load(), index)));
        }
    }
    let mut zones: Vec<Zone> = zones.into_values().collect();
    // Zones that are equal otherwise are taken in the order of their names.
    let mut order: BinaryHeap<_> = zones
        .iter()
        .enumerate()
        .filter(|(_, zone)| !zone.nodes.is_empty())
        .map(|(index, zone)| Reverse((zone.members, zone.instances, index)))
        .collect();
    let mut places = Vec::new();
    while u64_from(places.len()) < count {
        let Some(Reverse((_, _, at))) = order.pop() else { break };
        let zone = &mut zones[at];
        let Reverse((_, index)) = zone.nodes.pop().expect("only zones with nodes are in the order");
        let candidate = &mut candidates[index];
        candidate.added += 1;
        zone.members += 1;
        zone.instances += 1;
        places.push(candidate.node.id);
        if full(candidate.node, candidate.added, demand).is_none() {
            zone.nodes.push(Reverse((candidate.load(), index)));
        }
        if !zone.nodes.is_empty() {
            order.push(Reverse((zone.members, zone.instances, at)));
        }
    }
    places
}

#[derive(Default)]
struct Zone {
    members: u64,
    instances: u64,
    nodes: BinaryHeap<Reverse<(Load, usize)>>,
}

fn pack(candidates: &mut [Candidate<'_>], demand: &Demand, count: u64) -> Vec<NodeId> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| {
        let node = candidates[*index].node;
        (node.free_memory_bytes, Reverse(node.instances), node.id)
    });
    let mut places = Vec::new();
    for index in order {
        let candidate = &mut candidates[index];
        while u64_from(places.len()) < count && full(candidate.node, candidate.added, demand).is_none() {
            candidate.added += 1;
            places.push(candidate.node.id);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use muster_api::{
        deployment::Runtime,
        firmware::{self, Firmware, MachineFeature},
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::Libvirt;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn node(n: u128) -> NodeView {
        NodeView {
            id: Uuid::from_u128(n).into(),
            name: format!("n{n}"),
            zone: None,
            heard: true,
            schedulable: true,
            disk_full: false,
            disk_failed: false,
            libvirt: Libvirt::Answers,
            networks: true,
            features: Vec::new(),
            free_cpus: 8,
            free_memory_bytes: 4096 * MIB,
            instances: 0,
            members: 0,
        }
    }

    fn demand() -> Demand {
        Demand {
            cpus: 1,
            memory_bytes: 512 * MIB,
            runtime: Runtime::Libvirt,
            networks: false,
            features: Vec::new(),
            policy: PlacementPolicy::Spread,
            zones: None,
            nodes: None,
            max_per_node: None,
        }
    }

    fn counts(solution: &Solution) -> BTreeMap<NodeId, u64> {
        let mut counts = BTreeMap::new();
        for place in &solution.places {
            *counts.entry(*place).or_default() += 1;
        }
        counts
    }

    #[test]
    fn spread_is_even_over_zones_then_nodes() {
        let mut nodes: Vec<_> = (1..=3).map(node).collect();
        for (node, zone) in nodes.iter_mut().zip(["a", "a", "b"]) {
            node.zone = Some(zone.to_owned());
        }
        let solution = place(&Problem { nodes: nodes.clone(), demand: demand(), count: 8 });
        let counts = counts(&solution);
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [2, 2, 4]);
        assert_eq!((solution.unplaced, solution.reasons.len()), (0, 0));
    }

    #[test]
    fn pack_fills_one_node_before_the_next() {
        let mut nodes: Vec<_> = (1..=3).map(node).collect();
        nodes[2].free_memory_bytes = 2048 * MIB;
        let solution = place(&Problem {
            nodes: nodes.clone(),
            demand: Demand { policy: PlacementPolicy::Pack, ..demand() },
            count: 6,
        });
        assert_eq!(solution.places, [nodes[2].id, nodes[2].id, nodes[2].id, nodes[2].id, nodes[0].id, nodes[0].id]);
    }

    #[test]
    fn each_node_gives_one_reason() {
        let mut nodes: Vec<_> = (1..=8).map(node).collect();
        nodes[0].heard = false;
        nodes[1].schedulable = false;
        nodes[2].free_memory_bytes = 0;
        nodes[3].free_cpus = 0;
        nodes[4].disk_full = true;
        nodes[5].libvirt = Libvirt::Absent;
        nodes[6].members = 2;
        (nodes[7].disk_failed, nodes[7].disk_full) = (true, true);
        let demand = Demand { max_per_node: Some(2), ..demand() };
        let solution = place(&Problem { nodes, demand, count: 1 });
        let words: Vec<_> = solution.reason_counts().into_iter().map(|r| (r.reason, r.count)).collect();
        let wanted = ["silent", "cordoned", "runtime", "disk_failed", "disk_full", "max_per_node", "memory", "cpus"];
        assert_eq!(words, wanted.map(|word| (word.to_owned(), 1)));
        assert_eq!(solution.unplaced, 1);
    }

    #[test]
    fn members_wait_only_for_a_silent_libvirt_that_would_take_them() {
        let mut nodes: Vec<_> = (1..=4).map(node).collect();
        nodes[1].libvirt = Libvirt::Silent;
        (nodes[2].libvirt, nodes[2].free_memory_bytes) = (Libvirt::Silent, 0);
        (nodes[3].libvirt, nodes[3].disk_full) = (Libvirt::Silent, true);
        let solution = place(&Problem { nodes: nodes.clone(), demand: demand(), count: 20 });
        assert_eq!((solution.places.len(), solution.unplaced, solution.waiting), (8, 12, 8));
        assert_eq!(solution.silent_hypervisors().collect::<Vec<_>>(), [nodes[1].id]);
        assert_eq!(
            solution.sentences(),
            "2 nodes have too little free memory: ask for less, delete instances, or add nodes; \
             1 node has no room on disk: free some, or add nodes; \
             1 node cannot be used now because libvirt does not answer there: see that libvirtd runs"
        );
        let fits = place(&Problem { nodes, demand: demand(), count: 8 });
        assert_eq!((fits.places.len(), fits.unplaced, fits.waiting), (8, 0, 0), "there is room where libvirt answers");
    }

    #[test]
    fn runtime_none_runs_on_every_node_and_reserves_nothing() {
        let mut nodes: Vec<_> = (1..=3).map(node).collect();
        for node in &mut nodes {
            (node.free_cpus, node.free_memory_bytes, node.libvirt) = (0, 0, Libvirt::Absent);
        }
        let solution = place(&Problem { nodes, demand: Demand { runtime: Runtime::None, ..demand() }, count: 100 });
        let mut counts: Vec<_> = counts(&solution).into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [33, 33, 34]);
    }

    #[test]
    fn ten_thousand_members_find_a_place_on_a_thousand_nodes_well_under_a_second() {
        let nodes: Vec<_> = (0..1000)
            .map(|n| NodeView {
                zone: Some(format!("z{}", n % 7)),
                free_cpus: 64,
                free_memory_bytes: 64 << 30,
                ..node(n)
            })
            .collect();
        let began = Instant::now();
        let solution = place(&Problem { nodes, demand: demand(), count: 10_000 });
        assert_eq!(solution.unplaced, 0);
        assert!(began.elapsed().as_millis() < 500, "took {:?}", began.elapsed());
    }

    prop_compose! {
        fn any_node()(
            flags in any::<[bool; 3]>(), libvirt in 0_usize..4, zone in 0_u8..4, cpus in 0_u64..6, memory in 0_u64..6, instances in 0_u64..9,
            members in 0_u64..4,
        ) -> NodeView {
            NodeView {
                zone: (zone > 0).then(|| format!("z{zone}")),
                heard: flags[0] || flags[1],
                schedulable: flags[1] || flags[2],
                libvirt: [Libvirt::Answers, Libvirt::Answers, Libvirt::Silent, Libvirt::Absent][libvirt],
                disk_full: flags == [true, false, false],
                networks: instances % 3 > 0,
                features: if instances % 2 > 0 { vec![MachineFeature::Tpm, MachineFeature::Uefi] } else { Vec::new() },
                free_cpus: cpus,
                free_memory_bytes: memory * 256 * MIB,
                instances: instances + members,
                members,
                ..node(0)
            }
        }
    }

    prop_compose! {
        fn any_problem()(
            mut nodes in prop::collection::vec(any_node(), 0..12), cpus in 1_u64..4, memory in 1_u64..4,
            none in any::<bool>(), networks in any::<bool>(), uefi in any::<bool>(), pack in any::<bool>(), zones in prop::option::of(0_u8..5),
            selected in prop::option::of(0_usize..12), max_per_node in prop::option::of(0_u64..6), count in 0_u64..40,
        ) -> Problem {
            for (n, node) in nodes.iter_mut().enumerate() {
                node.id = Uuid::from_u128(n as u128 * 7919 % 101).into();
            }
            let demand = Demand {
                cpus,
                memory_bytes: memory * 128 * MIB,
                runtime: if none { Runtime::None } else { Runtime::Libvirt },
                networks,
                features: firmware::features(if uefi { Firmware::Uefi } else { Firmware::Bios }, networks),
                policy: if pack { PlacementPolicy::Pack } else { PlacementPolicy::Spread },
                zones: zones.map(|z| [format!("z{z}"), "z1".to_owned()].into()),
                nodes: selected.map(|s| nodes.iter().skip(s).map(|n| n.id).collect()),
                max_per_node,
            };
            Problem { nodes, demand, count }
        }
    }

    proptest! {
        #[test]
        fn capacity_is_kept_and_nothing_that_fits_is_refused(problem in any_problem()) {
            let solution = place(&problem);
            prop_assert_eq!(solution.places.len() as u64 + solution.unplaced, problem.count);
            prop_assert!(solution.waiting <= solution.unplaced);
            let mut answering = problem.clone();
            for node in &mut answering.nodes {
                node.libvirt = if node.libvirt == Libvirt::Silent { Libvirt::Answers } else { node.libvirt };
            }
            prop_assert_eq!(solution.waiting, solution.unplaced - place(&answering).unplaced);
            let counts = counts(&solution);
            let mut room = 0_u64;
            for node in &problem.nodes {
                let added = counts.get(&node.id).copied().unwrap_or(0);
                if added > 0 {
                    prop_assert_eq!(never(node, &problem.demand), None);
                    prop_assert_eq!(full(node, added - 1, &problem.demand), None, "the last one fitted");
                }
                if never(node, &problem.demand).is_none() && full(node, added, &problem.demand).is_none() {
                    room += 1;
                }
            }
            if solution.unplaced > 0 {
                prop_assert_eq!(room, 0, "a node had room");
                prop_assert_eq!(solution.reasons.values().sum::<u64>(), problem.nodes.len() as u64);
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(problem in any_problem()) {
            let mut turned = problem.clone();
            turned.nodes.reverse();
            prop_assert_eq!(place(&problem), place(&turned));
        }

        #[test]
        fn spread_differs_by_one_at_most_between_equal_nodes(count in 0_u64..50, nodes in 1_u128..9) {
            let nodes: Vec<_> = (0..nodes).map(|n| NodeView { free_cpus: 99, free_memory_bytes: 99 << 30, ..node(n) }).collect();
            let total = nodes.len() as u64;
            let counts = counts(&place(&Problem { nodes, demand: demand(), count }));
            let most = counts.values().copied().max().unwrap_or(0);
            prop_assert!(most <= count.div_ceil(total));
        }
    }
}
