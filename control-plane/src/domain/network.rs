//! Networks: which ones are allowed, and how the addresses of cards follow from a network and a host number.
//!
//! A card's host number is unique in its network. Its IPv4 address is the host number after the beginning of the subnet,
//! and so is its IPv6 address. Its MAC address is `52`, the three bytes of the network's number in tunnel packets, and the
//! last two bytes of the IPv4 address; in a network of mode `bridge`, which has no addresses, those of the host number. So
//! neither addresses nor MAC addresses can be given twice.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::{Ipv4Net, Ipv6Net};
use muster_api::{
    MacAddress, NetworkId,
    error::FieldError,
    network::{CreateNetwork, NetworkMode},
};

/// Largest packet where the request does not say: what a tunnel over Ethernet leaves.
const MTU: u16 = 1450;
/// The same for a bridge of the host, which needs no tunnel.
const MTU_OF_BRIDGE: u16 = 1500;
/// Sizes that the largest packet may have, bytes.
const MTUS: RangeInclusive<u16> = 576..=9000;
/// The least that IPv6 allows, bytes.
const MTU_V6_MIN: u16 = 1280;
/// Most name servers: resolvers of guests take no more.
const DNS_MAX: usize = 3;
/// The ranges that a subnet may be in: those for private use, and that for carriers.
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];
/// How long the prefix of a subnet may be. A /16 has as many hosts as two bytes of a MAC address can tell apart.
const PREFIXES: RangeInclusive<u8> = 16..=29;
/// Longest name of a network interface in Linux, bytes.
const INTERFACE_BYTES_MAX: usize = 15;
/// The subnet of networks whose request names none.
pub const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16);

/// How a network is laid out: a request that was checked, with all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How it is connected to the outside.
    pub mode: NetworkMode,
    /// The bridge on the hosts, with mode `bridge` only.
    pub bridge: Option<String>,
    /// Subnet and gateway, with the other modes only.
    pub v4: Option<(Ipv4Net, Ipv4Addr)>,
    /// The range of its IPv6 addresses, if it has any.
    pub subnet_v6: Option<Ipv6Net>,
    /// Name servers; empty for those of the nodes.
    pub dns: Vec<IpAddr>,
    /// Largest packet, bytes.
    pub mtu: u16,
}

/// What does not fit in a request.
#[derive(Default)]
struct Complaints(Vec<FieldError>);

impl Complaints {
    fn add(&mut self, field: &str, code: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: format!("/{field}"), code: code.to_owned(), detail: detail.into() });
    }
}

impl Layout {
    /// Checks a request. An error lists all fields that do not fit.
    pub fn read(wanted: &CreateNetwork, default_subnet: Ipv4Net) -> Result<Self, Vec<FieldError>> {
        let mut wrong = Complaints::default();
        let mode = wanted.mode.unwrap_or_default();
        let dns = wanted.dns.clone().unwrap_or_default();
        wrong.0.extend(check_dns(&dns));
        let mtu = wanted.mtu.unwrap_or_else(|| default_mtu(mode));
        wrong.0.extend(check_mtu(mtu, wanted.subnet_v6.is_some()));
        let v4 = if mode == NetworkMode::Bridge {
            check_bridge(wanted, &mut wrong);
            None
        } else {
            if wanted.bridge.is_some() {
                wrong.add("bridge", "invalid", "only with mode bridge");
            }
            let subnet = wanted.subnet_v4.unwrap_or(default_subnet);
            wrong.0.extend(check_subnet("/subnet_v4", subnet));
            let gateway = wanted.gateway.unwrap_or_else(|| first_host(subnet));
            if wanted.gateway.is_some() && host_of(subnet, gateway).is_none() {
                let why = format!("a host address within {subnet}, got {gateway}");
                wrong.add("gateway", "out_of_range", why);
            }
            Some((subnet, gateway))
        };
        if let Some(subnet) = wanted.subnet_v6
            && (subnet.prefix_len() != 64 || subnet.addr().octets()[0] != 0xfd || subnet.addr() != subnet.network())
        {
            wrong.add(
                "subnet_v6",
                "out_of_range",
                format!("a /64 within fd00::/8, such as fd12:3456:789a:1::/64, got {subnet}"),
            );
        }
        let bridge = wanted.bridge.clone();
        if wrong.0.is_empty() {
            Ok(Self { mode, bridge, v4, subnet_v6: wanted.subnet_v6, dns, mtu })
        } else {
            Err(wrong.0)
        }
    }

    /// The network `default` of a project. Its IPv6 subnet follows from its id.
    #[must_use]
    pub fn of_default(id: NetworkId, subnet: Ipv4Net) -> Self {
        Self {
            mode: NetworkMode::Nat,
            bridge: None,
            v4: Some((subnet, first_host(subnet))),
            subnet_v6: Some(subnet_v6_of(id)),
            dns: Vec::new(),
            mtu: MTU,
        }
    }
}

/// The largest packet of a network whose request does not say it.
#[must_use]
pub const fn default_mtu(mode: NetworkMode) -> u16 {
    match mode {
        NetworkMode::Bridge => MTU_OF_BRIDGE,
        NetworkMode::Nat | NetworkMode::Isolated => MTU,
    }
}

/// What is wrong with the largest packet of a network.
#[must_use]
pub fn check_mtu(mtu: u16, has_v6: bool) -> Option<FieldError> {
    let least = if has_v6 { MTU_V6_MIN } else { *MTUS.start() };
    let why = if has_v6 { " (IPv6 needs at least 1280)" } else { "" };
    (mtu < least || mtu > *MTUS.end()).then(|| FieldError {
        pointer: "/mtu".to_owned(),
        code: "out_of_range".to_owned(),
        detail: format!("{least} to {}{why}, got {mtu}", MTUS.end()),
    })
}

/// What is wrong with the name servers of a network.
#[must_use]
pub fn check_dns(dns: &[IpAddr]) -> Option<FieldError> {
    let error = |pointer: String, code: &str, detail: String| FieldError { pointer, code: code.to_owned(), detail };
    if dns.len() > DNS_MAX {
        return Some(error("/dns".to_owned(), "out_of_range", format!("at most {DNS_MAX}, got {}", dns.len())));
    }
    let is_no_host = |address: &IpAddr| {
        address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || *address == IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    let (n, address) = dns.iter().enumerate().find(|(_, address)| is_no_host(address))?;
    Some(error(format!("/dns/{n}"), "invalid", format!("no guest can ask {address}: name the address of a server")))
}

/// What is wrong with a subnet at this place.
#[must_use]
pub fn check_subnet(pointer: &str, subnet: Ipv4Net) -> Option<FieldError> {
    let error = |code: &str, detail| Some(FieldError { pointer: pointer.to_owned(), code: code.to_owned(), detail });
    if !PREFIXES.contains(&subnet.prefix_len()) {
        return error(
            "out_of_range",
            format!("a subnet of /{} to /{}, got {subnet}", PREFIXES.start(), PREFIXES.end()),
        );
    }
    if subnet.addr() != subnet.network() {
        return error("invalid", format!("{subnet} is an address in a subnet: the subnet is {}", subnet.trunc()));
    }
    if !PRIVATE.iter().any(|range| range.contains(&subnet)) {
        let ranges = PRIVATE.map(|range| range.to_string()).join(", ");
        return error("out_of_range", format!("a subnet within one of {ranges}, got {subnet}"));
    }
    None
}

fn check_bridge(wanted: &CreateNetwork, wrong: &mut Complaints) {
    match wanted.bridge.as_deref() {
        None => wrong.add("bridge", "missing", "mode bridge needs the name of a bridge on the hosts"),
        Some(name) if !is_interface_name(name) => {
            let why = format!(
                "the name of a network interface: 1 to {INTERFACE_BYTES_MAX} of a-z, A-Z, 0-9, -, _ and ., the first no - and no ."
            );
            wrong.add("bridge", "invalid", why);
        }
        Some(_) => {}
    }
    let why = "not with mode bridge: the network of the host decides it";
    for (field, given) in [
        ("subnet_v4", wanted.subnet_v4.is_some()),
        ("subnet_v6", wanted.subnet_v6.is_some()),
        ("gateway", wanted.gateway.is_some()),
        ("dns", wanted.dns.is_some()),
    ] {
        if given {
            wrong.add(field, "invalid", why);
        }
    }
}

/// Linux allows more characters. These cannot be taken for an option or a path.
fn is_interface_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=INTERFACE_BYTES_MAX).contains(&name.len()) && name.chars().all(fits) && !name.starts_with(['-', '.'])
}

/// The numbers that hosts of a network can have; the gateway has one of them. Without a subnet (mode `bridge`) all that
/// MAC addresses can tell apart.
#[must_use]
pub fn hosts(subnet: Option<Ipv4Net>) -> RangeInclusive<u16> {
    let size = subnet.map_or(1 << 16, |subnet| 1_u32 << (32 - u32::from(subnet.prefix_len())));
    // The first address is that of the subnet, the last one is for broadcasts.
    let last = if subnet.is_some() { size - 2 } else { size - 1 };
    1..=u16::try_from(last).expect("a subnet has at most 2^16 addresses")
}

/// How many cards a network can have.
#[must_use]
pub fn capacity(subnet: Option<Ipv4Net>) -> u64 {
    let gateway = u64::from(subnet.is_some());
    u64::from(*hosts(subnet).end()) - gateway
}

/// The number of the host with this address; `None` if no host of the subnet can have it.
#[must_use]
pub fn host_of(subnet: Ipv4Net, address: Ipv4Addr) -> Option<u16> {
    let number = u32::from(address).checked_sub(u32::from(subnet.network()))?;
    u16::try_from(number).ok().filter(|number| hosts(Some(subnet)).contains(number))
}

/// The address of the host with this number.
#[must_use]
pub fn address(subnet: Ipv4Net, host: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + u32::from(host))
}

/// The IPv6 address of the host with this number.
#[must_use]
pub fn address_v6(subnet: Ipv6Net, host: u16) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(subnet.network()) + u128::from(host))
}

/// The MAC address of the card with this host number.
#[must_use]
pub fn mac(vni: u32, subnet: Option<Ipv4Net>, host: u16) -> MacAddress {
    let [_, _, e, f] = match subnet {
        Some(subnet) => address(subnet, host).octets(),
        None => u32::from(host).to_be_bytes(),
    };
    with_vni(vni, [e, f])
}

/// The MAC address of the gateway. No card has it: no host address ends in two zero bytes.
#[must_use]
pub fn gateway_mac(vni: u32) -> MacAddress {
    with_vni(vni, [0, 0])
}

/// The host number of the card with this MAC address in a network; `None` if the address is of another network.
#[must_use]
pub fn host_with_mac(vni: u32, subnet: Option<Ipv4Net>, address: MacAddress) -> Option<u16> {
    let [.., e, f] = address.bytes();
    let end = u16::from_be_bytes([e, f]);
    let begin = subnet.map_or(0, |subnet| {
        let [.., e, f] = subnet.network().octets();
        u16::from_be_bytes([e, f])
    });
    let host = end.checked_sub(begin)?;
    (hosts(subnet).contains(&host) && mac(vni, subnet, host) == address).then_some(host)
}

fn with_vni(vni: u32, end: [u8; 2]) -> MacAddress {
    let [_, b, c, d] = vni.to_be_bytes();
    MacAddress::new([0x52, b, c, d, end[0], end[1]])
}

fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    address(subnet, 1)
}

/// A subnet of unique local addresses: `fd` and the random end of the network's id.
fn subnet_v6_of(id: NetworkId) -> Ipv6Net {
    let id = id.uuid().into_bytes();
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&id[9..16]);
    Ipv6Net::new(Ipv6Addr::from(bytes), 64).expect("a prefix of 64 bits")
}

/// Domain in which the instances of a network have their host names.
#[must_use]
pub fn domain(network: &str, project: &str) -> String {
    format!("{network}.{project}.muster.internal")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<Layout, Vec<(String, String)>> {
        let wanted: CreateNetwork = serde_json::from_value(body).expect("the JSON fits the type");
        Layout::read(&wanted, DEFAULT_SUBNET)
            .map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.code)).collect())
    }

    #[test]
    fn what_is_left_out_gets_its_default() {
        let layout = read(json!({})).expect("fits");
        assert_eq!(layout.v4, Some((DEFAULT_SUBNET, Ipv4Addr::new(10, 77, 0, 1))));
        assert_eq!((layout.mode, layout.mtu, layout.subnet_v6), (NetworkMode::Nat, 1450, None));
        let bridge = read(json!({"mode": "bridge", "bridge": "br-lan.7"})).expect("fits");
        assert_eq!((bridge.v4, bridge.mtu), (None, 1500));
    }

    #[test]
    fn each_complaint_names_its_field() {
        for (body, field, code) in [
            (json!({"subnet_v4": "8.8.8.0/24"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "127.0.0.0/16"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "169.254.0.0/16"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "172.32.0.0/16"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "10.0.0.0/15"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "10.0.0.0/30"}), "subnet_v4", "out_of_range"),
            (json!({"subnet_v4": "10.0.0.1/24"}), "subnet_v4", "invalid"),
            (json!({"subnet_v4": "10.0.0.0/24", "gateway": "10.0.1.1"}), "gateway", "out_of_range"),
            (json!({"subnet_v4": "10.0.0.0/24", "gateway": "10.0.0.0"}), "gateway", "out_of_range"),
            (json!({"subnet_v4": "10.0.0.0/24", "gateway": "10.0.0.255"}), "gateway", "out_of_range"),
            (json!({"subnet_v6": "2001:db8::/64"}), "subnet_v6", "out_of_range"),
            (json!({"subnet_v6": "fd00::/48"}), "subnet_v6", "out_of_range"),
            (json!({"subnet_v6": "fd00::1/64"}), "subnet_v6", "out_of_range"),
            (json!({"mtu": 575}), "mtu", "out_of_range"),
            (json!({"mtu": 9001}), "mtu", "out_of_range"),
            (json!({"mtu": 1279, "subnet_v6": "fd00::/64"}), "mtu", "out_of_range"),
            (json!({"dns": ["127.0.0.53"]}), "dns/0", "invalid"),
            (json!({"dns": ["1.1.1.1", "::"]}), "dns/1", "invalid"),
            (json!({"dns": ["1.1.1.1", "1.0.0.1", "8.8.8.8", "9.9.9.9"]}), "dns", "out_of_range"),
            (json!({"bridge": "br0"}), "bridge", "invalid"),
            (json!({"mode": "bridge"}), "bridge", "missing"),
            (json!({"mode": "bridge", "bridge": "a-name-of-16-char"}), "bridge", "invalid"),
            (json!({"mode": "bridge", "bridge": "../br0"}), "bridge", "invalid"),
            (json!({"mode": "bridge", "bridge": "-br0"}), "bridge", "invalid"),
            (json!({"mode": "bridge", "bridge": "br 0"}), "bridge", "invalid"),
            (json!({"mode": "bridge", "bridge": ""}), "bridge", "invalid"),
            (json!({"mode": "bridge", "bridge": "br0", "gateway": "10.0.0.1"}), "gateway", "invalid"),
        ] {
            let pointer = format!("/{field}");
            assert_eq!(read(body.clone()), Err(vec![(pointer, code.to_owned())]), "{body}");
        }
        for good in ["10.0.0.0/16", "172.31.255.248/29", "192.168.0.0/16", "100.127.0.0/24"] {
            assert!(read(json!({ "subnet_v4": good })).is_ok(), "{good}");
        }
    }

    #[test]
    fn no_two_cards_have_one_address_and_none_has_that_of_the_gateway() {
        let subnets = ["10.0.0.0/16", "10.9.0.0/24", "192.168.255.248/29", "100.64.3.128/25"];
        for subnet in subnets.iter().map(|text| Some(text.parse().expect("a subnet"))).chain([None::<Ipv4Net>]) {
            let all: Vec<u16> = hosts(subnet).collect();
            let macs: BTreeSet<MacAddress> = all.iter().map(|host| mac(77, subnet, *host)).collect();
            assert_eq!(macs.len(), all.len());
            assert!(!macs.contains(&gateway_mac(77)) && macs.iter().all(|mac| mac.is_unicast()));
            for host in all {
                let mac = mac(77, subnet, host);
                assert_eq!(host_with_mac(77, subnet, mac), Some(host), "{subnet:?}");
                assert_eq!(host_with_mac(78, subnet, mac), None);
                if let Some(subnet) = subnet {
                    assert_eq!(host_of(subnet, address(subnet, host)), Some(host));
                }
            }
        }
        assert_eq!(capacity(Some("10.0.0.0/29".parse().expect("a subnet"))), 5);
        assert_eq!(capacity(Some("10.0.0.0/16".parse().expect("a subnet"))), 65_533);
        assert_eq!(capacity(None), 65_535);
    }

    #[test]
    fn networks_with_other_numbers_have_other_mac_addresses() {
        let subnet = Some(DEFAULT_SUBNET);
        assert_eq!(mac(0x01_02_03, subnet, 0x0405).to_string(), "52:01:02:03:04:05");
        assert_ne!(mac(1, subnet, 5), mac(2, subnet, 5));
    }

    #[test]
    fn the_default_network_has_unique_local_addresses() {
        let of = || Layout::of_default(NetworkId::generate(), DEFAULT_SUBNET).subnet_v6.expect("it has some");
        let (one, other) = (of(), of());
        assert_ne!(one, other);
        assert!(one.to_string().starts_with("fd") && one.prefix_len() == 64 && one.addr() == one.network());
        assert_eq!(address_v6("fd00:1::/64".parse().expect("a subnet"), 0x0102).to_string(), "fd00:1::102");
    }
}
