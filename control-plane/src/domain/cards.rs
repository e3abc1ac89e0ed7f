//! Network cards of the members of a deployment: what may be asked for, and which free number each card gets.

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

use muster_api::{
    NetworkId, SecurityGroupId,
    deployment::Runtime,
    error::FieldError,
    network::{CreateNic, PublishPort},
    node_protocol::network::PortProtocol,
};
use serde::{Deserialize, Serialize};

/// Most cards of one instance.
const NICS_MAX: usize = 8;
/// Most security groups of one card.
const GROUPS_MAX: usize = 8;
/// Most published ports of one card.
const PORTS_MAX: usize = 32;

/// A card that each member of a deployment gets. References are ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardPlan {
    /// The network that it is in.
    pub network: NetworkId,
    /// The address that the only member gets, if the request named one.
    pub address: Option<Ipv4Addr>,
    /// Its security groups.
    pub groups: Vec<SecurityGroupId>,
    /// Its published ports.
    pub ports: Vec<PublishPort>,
}

impl CardPlan {
    /// The same for other members: without what only one of them can have.
    #[must_use]
    pub fn for_others(mut self) -> Self {
        self.address = None;
        self.ports.iter_mut().for_each(|port| port.node_port = None);
        self
    }
}

fn error(pointer: String, code: &str, detail: impl Into<String>) -> FieldError {
    FieldError { pointer, code: code.to_owned(), detail: detail.into() }
}

/// What does not fit in the cards of a request.
#[must_use]
pub fn check(nics: &[CreateNic], runtime: Runtime) -> Vec<FieldError> {
    if runtime == Runtime::None && !nics.is_empty() {
        return vec![error(
            "/nics".to_owned(),
            "invalid",
            "runtime none has no virtual machine, so it has no network cards",
        )];
    }
    if nics.len() > NICS_MAX {
        return vec![error("/nics".to_owned(), "out_of_range", format!("at most {NICS_MAX}, got {}", nics.len()))];
    }
    let mut wrong = Vec::new();
    let mut node_ports = BTreeSet::new();
    for (n, nic) in nics.iter().enumerate() {
        let at = |field: &str| format!("/nics/{n}/{field}");
        if nic.mac.is_some() {
            wrong.push(error(at("mac"), "invalid", "leave it out: it follows from the network and the address"));
        }
        match &nic.security_groups {
            Some(groups) if groups.is_empty() => {
                let why = "name a group, or leave it out for the group default: without any nothing gets in or out";
                wrong.push(error(at("security_groups"), "invalid", why));
            }
            Some(groups) if groups.len() > GROUPS_MAX => {
                let why = format!("at most {GROUPS_MAX}, got {}", groups.len());
                wrong.push(error(at("security_groups"), "out_of_range", why));
            }
            _ => {}
        }
        if nic.ports.len() > PORTS_MAX {
            let why = format!("at most {PORTS_MAX}, got {}", nic.ports.len());
            wrong.push(error(at("ports"), "out_of_range", why));
        }
        let mut ports = BTreeSet::new();
        for (p, port) in nic.ports.iter().enumerate() {
            let at = |field: &str| format!("/nics/{n}/ports/{p}/{field}");
            if port.port == 0 || !ports.insert((port.protocol, port.port)) {
                wrong.push(error(at("port"), "invalid", format!("1 to 65535, each once; got {}", port.port)));
            }
            if let Some(node_port) = port.node_port
                && !node_ports.insert((port.protocol, node_port))
            {
                wrong.push(error(at("node_port"), "invalid", format!("{node_port} is given twice")));
            }
        }
    }
    wrong
}

/// What members cannot have if there are `count` of them: an address or a port of the nodes that only one can have.
#[must_use]
pub fn check_count(plans: &[CardPlan], count: u64) -> Vec<FieldError> {
    if count <= 1 {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (n, plan) in plans.iter().enumerate() {
        if plan.address.is_some() {
            let why = format!("only one of {count} members can have it: leave it out");
            wrong.push(error(format!("/nics/{n}/address"), "invalid", why));
        }
        for (p, _) in plan.ports.iter().enumerate().filter(|(_, port)| port.node_port.is_some()) {
            let why = format!("only one of {count} members can have it: leave it out, and each gets a port of its own");
            wrong.push(error(format!("/nics/{n}/ports/{p}/node_port"), "invalid", why));
        }
    }
    wrong
}

/// The parts of `all` in which to look for free numbers, one after the other: first those after `last`, which was given
/// last, so that no number is used again at once. Each part has at most `size` numbers.
pub fn parts(all: RangeInclusive<u16>, last: u16, size: u16) -> impl Iterator<Item = RangeInclusive<u16>> {
    let (first, end) = all.into_inner();
    let after = last.max(first - 1);
    let pieces = move |from: u32, to: u32| {
        let step = usize::from(size.max(1));
        (from..=to).step_by(step).map(move |begin| {
            let last = to.min(begin + u32::from(size.max(1)) - 1);
            let fits = |n: u32| u16::try_from(n).expect("it is within a range of u16");
            fits(begin)..=fits(last)
        })
    };
    let split = u32::from(after).min(u32::from(end));
    pieces(split + 1, u32::from(end)).chain(pieces(u32::from(first), split))
}

/// The free ports of the range, lowest first.
pub fn free_ports(
    range: RangeInclusive<u16>,
    used: &BTreeSet<(PortProtocol, u16)>,
    protocol: PortProtocol,
) -> impl Iterator<Item = u16> {
    range.filter(move |port| !used.contains(&(protocol, *port)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(nics: Value, runtime: Runtime) -> Vec<String> {
        let nics: Vec<CreateNic> = serde_json::from_value(nics).expect("the JSON fits the type");
        check(&nics, runtime).into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn each_complaint_names_its_field() {
        let ports = |n: usize| (1..=n).map(|port| json!({ "port": port })).collect::<Vec<_>>();
        let groups = |n: usize| (0..n).map(|n| format!("g{n}")).collect::<Vec<_>>();
        for (nics, pointer) in [
            (json!([{"network": "a", "mac": "52:00:00:01:00:02"}]), "/nics/0/mac"),
            (json!([{"network": "a"}, {"network": "b", "security_groups": []}]), "/nics/1/security_groups"),
            (json!([{"network": "a", "security_groups": groups(9)}]), "/nics/0/security_groups"),
            (json!([{"network": "a", "ports": ports(33)}]), "/nics/0/ports"),
            (json!([{"network": "a", "ports": [{"port": 0}]}]), "/nics/0/ports/0/port"),
            (json!([{"network": "a", "ports": [{"port": 80}, {"port": 80}]}]), "/nics/0/ports/1/port"),
            (
                json!([{"network": "a", "ports": [{"port": 1, "node_port": 30000}]},
                    {"network": "b", "ports": [{"port": 2, "node_port": 30000}]}]),
                "/nics/1/ports/0/node_port",
            ),
            (json!(vec![json!({"network": "a"}); 9]), "/nics"),
        ] {
            assert_eq!(pointers(nics.clone(), Runtime::Libvirt), [pointer], "{nics}");
        }
        assert_eq!(pointers(json!([{"network": "a"}]), Runtime::None), ["/nics"]);
        assert!(pointers(json!([]), Runtime::None).is_empty());
        let both = json!([{"network": "a", "ports": [{"port": 53}, {"port": 53, "protocol": "udp"}]}]);
        assert!(pointers(both, Runtime::Libvirt).is_empty());
    }

    #[test]
    fn every_number_is_looked_at_once_beginning_after_the_last_one() {
        for (all, last, size) in
            [(1..=254, 0, 100), (1..=254, 17, 100), (1..=254, 254, 7), (1..=6, 6, 1), (1..=u16::MAX, 65_534, 1024)]
        {
            let looked: Vec<u16> = parts(all.clone(), last, size).flatten().collect();
            let expected: Vec<u16> = all.clone().filter(|n| *n > last).chain(all.filter(|n| *n <= last)).collect();
            assert_eq!(looked, expected, "after {last} in steps of {size}");
        }
    }
}
