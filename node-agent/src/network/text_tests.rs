//! The texts that are given to the kernel and to dnsmasq, compared with files in `tests/golden`; `MUSTER_BLESS=1`
//! writes those.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use muster_api::{
    ClusterId, MacAddress, NetworkId, NodeId, SecurityGroupId,
    node_protocol::network::{
        NetworkAssignment, NetworkMember, NetworkMode, NetworksAssignment, PortProtocol, PublishedPort, Rule,
        RuleDirection, RuleMatch, RuleRemote,
    },
};
use uuid::Uuid;

use super::{
    dhcp::{self, Files},
    groups,
    host_rules::HostRules,
    names, spoofing,
    uplink::Slot,
    wanted::{self, Form, Wanted},
};
use crate::hypervisor::Owner;

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn here() -> NodeId {
    NodeId::from(id(1))
}

fn mac(last: u8) -> MacAddress {
    MacAddress::new([0x52, 0, 0, 7, 0, last])
}

fn member(node: NodeId, last: u8, groups: &[SecurityGroupId]) -> NetworkMember {
    NetworkMember {
        node,
        host_name: format!("web-{last}"),
        mac: mac(last),
        address_v4: Some(Ipv4Addr::new(10, 77, 0, last)),
        address_v6: Some(format!("fd00:7::{last:x}").parse().expect("address")),
        groups: groups.to_vec(),
    }
}

/// A network with two cards here, in different groups, and one elsewhere.
fn told() -> NetworksAssignment {
    let (web, jump) = (SecurityGroupId::from(id(0xa)), SecurityGroupId::from(id(0xb)));
    let rule = |direction, matches, remote| Rule { direction, matches, remote };
    let ports = |transport, from, to| RuleMatch::Ports { transport, from, to };
    let out = || rule(RuleDirection::Out, RuleMatch::Any, RuleRemote::Any);
    let network = NetworkAssignment {
        network: NetworkId::from(id(2)),
        name: "default".to_owned(),
        project: "p1".to_owned(),
        vni: 7,
        mode: NetworkMode::Nat,
        subnet_v4: "10.77.0.0/16".parse().expect("subnet"),
        gateway_v4: Ipv4Addr::new(10, 77, 0, 1),
        subnet_v6: Some("fd00:7::/64".parse().expect("subnet")),
        gateway_v6: Some("fd00:7::1".parse().expect("address")),
        gateway_mac: mac(0),
        dns: Vec::new(),
        domain: "default.p1.muster.internal".to_owned(),
        mtu: 1450,
        members: vec![member(here(), 2, &[web]), member(here(), 3, &[jump]), member(NodeId::from(id(9)), 4, &[web])],
        published: vec![PublishedPort {
            node_port: 30_022,
            protocol: PortProtocol::Tcp,
            address: Ipv4Addr::new(10, 77, 0, 3),
            port: 22,
        }],
    };
    NetworksAssignment {
        networks: vec![network],
        groups: [
            (
                web,
                vec![
                    out(),
                    rule(RuleDirection::In, RuleMatch::Any, RuleRemote::Group(web)),
                    rule(RuleDirection::In, ports(PortProtocol::Tcp, 22, 22), RuleRemote::Group(jump)),
                    rule(RuleDirection::In, RuleMatch::Icmp, RuleRemote::Any),
                ],
            ),
            (
                jump,
                vec![
                    out(),
                    rule(
                        RuleDirection::In,
                        ports(PortProtocol::Udp, 6000, 6010),
                        RuleRemote::Range("192.0.2.7/24".parse().expect("range")),
                    ),
                    rule(
                        RuleDirection::In,
                        ports(PortProtocol::Tcp, 22, 22),
                        RuleRemote::Range("::/0".parse().expect("range")),
                    ),
                ],
            ),
        ]
        .into(),
        tunnels: [(NodeId::from(id(9)), "192.0.2.9:7450".to_owned())].into(),
    }
}

fn checked(told: &NetworksAssignment) -> Result<Wanted, String> {
    wanted::check(told, here()).into_values().next().expect("one network")
}

#[test]
fn the_texts_of_a_network_are_as_agreed() {
    let wanted = checked(&told()).expect("good");
    let Form::Overlay(overlay) = &wanted.form else { panic!("it has a bridge of its own") };
    let rules = spoofing::rules(here(), overlay, &wanted.here) + &groups::rules(overlay, &wanted.here);
    golden("network.nft", &rules);
    let folder = Path::new("/var/lib/muster-agent/networks/n");
    let dns = [IpAddr::from([192, 0, 2, 53])];
    let Files { conf, leases, hosts } = dhcp::files(overlay, wanted.mtu, &wanted.here, &dns, folder);
    golden("network.dnsmasq", &format!("{conf}# leases\n{leases}# hosts\n{hosts}"));
    let isolated = NetworkAssignment { mode: NetworkMode::Isolated, ..told().networks.remove(0) };
    let isolated = checked(&NetworksAssignment { networks: vec![isolated], ..told() }).expect("good");
    let Form::Overlay(overlay) = &isolated.form else { panic!("it has a bridge of its own") };
    assert!(!groups::rules(overlay, &isolated.here).contains("masquerade"));
    let conf = dhcp::files(overlay, 1450, &isolated.here, &dns, folder).conf;
    assert!(conf.contains("dhcp-option=option:router\n") && !conf.contains("server=192"), "{conf}");
}

#[test]
fn the_rules_of_the_host_are_as_agreed() {
    let wanted = checked(&told()).expect("good");
    let Form::Overlay(overlay) = &wanted.form else { panic!("it has a bridge of its own") };
    let owner = Owner { cluster: ClusterId::from(id(5)), node: here() };
    let slot = Slot::of(Ipv4Addr::new(169, 254, 4, 5)).expect("in the range");
    let rules = HostRules {
        tunnel_port: 7450,
        peers: overlay.tunnels(),
        uplinks: [(names::uplink("muster-x"), slot.inner())].into(),
        resolvers: [IpAddr::from([192, 0, 2, 53])].into(),
        published: overlay.published.iter().map(|port| (*port, slot.inner())).collect(),
        bridged: [(names::tap(here(), mac(9)), mac(9))].into(),
    };
    golden("network-host.nft", &rules.text(&names::host_table(owner)));
}

#[test]
fn what_is_no_network_is_refused_with_the_reason() {
    let with = |change: &dyn Fn(&mut NetworkAssignment)| {
        let mut told = told();
        told.networks.iter_mut().for_each(change);
        checked(&told).expect_err("refused")
    };
    assert!(with(&|n| n.domain = "x\nserver=192.0.2.1".to_owned()).contains("no name of DNS"));
    assert!(with(&|n| n.members[0].host_name = "a,b".to_owned()).contains("no name of DNS"));
    assert!(
        with(&|n| n.mode = NetworkMode::Bridge { bridge: "br0; drop".to_owned() }).contains("no name of an interface")
    );
    assert!(with(&|n| n.gateway_v4 = Ipv4Addr::new(192, 0, 2, 1)).contains("is not in 10.77.0.0/16"));
    assert!(with(&|n| n.vni = 1 << 24).contains("2^24"));
    assert!(with(&|n| n.members[0].mac = MacAddress::new([1; 6])).contains("group of cards"));
    let mut told = told();
    told.tunnels.values_mut().for_each(|tunnel| tunnel.push_str(" port 1"));
    assert!(checked(&told).expect_err("refused").contains("no IP:PORT"));
}
