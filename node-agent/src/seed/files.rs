//! What a guest is told, as the files that cloud-init's data source NoCloud reads. Pure.
//!
//! Everything but user data is JSON, which is YAML as well. So no text of a user is ever pasted into another text.

use muster_api::node_protocol::{
    Assignment,
    network::{NetworkAssignment, NetworkMode, NicAssignment},
    seed::Seed,
};
use serde_json::{Map, Value, json};

/// A file of a seed disk.
pub type SeedFile = (&'static str, String);

/// What user data is called where there is none: cloud-init wants the file.
const NO_USER_DATA: &str = "#cloud-config\n";

/// The files of the seed disk of an instance. It may fail if the desired state lacks a network.
///
/// # Errors
/// A sentence that says what is missing.
pub fn seed_files(
    assignment: &Assignment,
    seed: &Seed,
    networks: &[NetworkAssignment],
) -> Result<Vec<SeedFile>, String> {
    let meta_data = json!({
        // A fork is another instance, so cloud-init begins anew in it: new host keys, host name and network.
        "instance-id": assignment.instance.to_string(),
        "local-hostname": assignment.host_name,
        "public-keys": seed.ssh_keys,
    });
    // cloud-init makes no new machine id for a new instance, and programs take it for unique.
    let renew = "rm -f /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup";
    let vendor_data = json!({ "bootcmd": [["cloud-init-per", "instance", "machineid", "sh", "-c", renew]] });
    let mut files = vec![
        ("meta-data", text(&meta_data)),
        ("user-data", seed.user_data.clone().unwrap_or_else(|| NO_USER_DATA.to_owned())),
        ("vendor-data", format!("#cloud-config\n{}", text(&vendor_data))),
    ];
    // Without this file a guest asks for an address on the first card that it finds.
    if !assignment.nics.is_empty() {
        files.push(("network-config", text(&network_config(&assignment.nics, networks)?)));
    }
    Ok(files)
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Network configuration of version 2. Cards are known by their MAC addresses.
fn network_config(nics: &[NicAssignment], networks: &[NetworkAssignment]) -> Result<Value, String> {
    let mut ethernets = Map::new();
    let mut has_gateway = false;
    for (number, nic) in nics.iter().enumerate() {
        let network = networks.iter().find(|network| network.network == nic.network);
        let network = network.ok_or_else(|| format!("the controller sent no network {}", nic.network))?;
        let name = format!("eth{number}");
        let mut card = json!({ "match": { "macaddress": nic.mac }, "set-name": name, "mtu": network.mtu });
        if network.mode.is_bridge() {
            card["dhcp4"] = json!(true);
        } else {
            let wants_gateway = network.mode == NetworkMode::Nat && !has_gateway;
            fixed(&mut card, nic, network, wants_gateway)?;
            has_gateway |= wants_gateway;
        }
        ethernets.insert(name, card);
    }
    Ok(json!({ "version": 2, "ethernets": ethernets }))
}

/// Adds the addresses that the controller gave the card.
fn fixed(card: &mut Value, nic: &NicAssignment, network: &NetworkAssignment, gateway: bool) -> Result<(), String> {
    let member = network.members.iter().find(|member| member.mac == nic.mac);
    let member = member.ok_or_else(|| format!("network {} has no member {}", network.name, nic.mac))?;
    let v4 = member.address_v4.map(|address| format!("{address}/{}", network.subnet_v4.prefix_len()));
    let v6 = member.address_v6.zip(network.subnet_v6).map(|(at, subnet)| format!("{at}/{}", subnet.prefix_len()));
    card["addresses"] = json!(v4.into_iter().chain(v6).collect::<Vec<_>>());
    // The gateway knows the names of the members, and asks others for all other names.
    card["nameservers"] = json!({ "addresses": [network.gateway_v4], "search": [network.domain] });
    if gateway {
        card["routes"] = json!([{ "to": "0.0.0.0/0", "via": network.gateway_v4 }]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use muster_api::{
        DiskId, InstanceId, MacAddress, NetworkId, NodeId, VersionId,
        deployment::{OnHostStart, OnReadyTimeout, Probe, Ready, Runtime},
        node_protocol::{DiskAssignment, Wanted, network::NetworkMember},
    };

    use super::*;

    fn assignment() -> Assignment {
        Assignment {
            instance: InstanceId::from(uuid::Uuid::from_u128(7)),
            name: "web.0".to_owned(),
            host_name: "web-0".to_owned(),
            project: "default".to_owned(),
            generation: 1,
            wanted: Wanted::Running,
            boot: 1,
            stop_force: false,
            stop_timeout_s: 30,
            cpus: 1,
            memory_bytes: 1 << 20,
            runtime: Runtime::Libvirt,
            ready: Ready { probe: Probe::Running, marker: None, timeout_s: None },
            on_ready_timeout: OnReadyTimeout::default(),
            on_host_start: OnHostStart::default(),
            firmware: muster_api::firmware::Firmware::Bios,
            tpm: false,
            disks: vec![DiskAssignment {
                disk: DiskId::generate(),
                name: "root".to_owned(),
                size_bytes: 4096,
                version: VersionId::generate(),
                in_guest: true,
                since_generation: 0,
            }],
            left: Vec::new(),
            nics: Vec::new(),
            seed: None,
        }
    }

    fn parsed<'a>(files: &'a [SeedFile], name: &str) -> Value {
        let (_, text): &'a SeedFile = files.iter().find(|(of, _)| *of == name).unwrap();
        serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap_or(text)).unwrap()
    }

    fn network(number: u8, mode: NetworkMode) -> (NicAssignment, NetworkAssignment) {
        let mac = MacAddress::new([0x52, 0, 0, number, 0, 2]);
        let has_address = !mode.is_bridge();
        let network = NetworkAssignment {
            network: NetworkId::generate(),
            name: format!("net{number}"),
            project: "default".to_owned(),
            vni: u32::from(number),
            mode,
            subnet_v4: format!("10.{number}.0.0/16").parse().unwrap(),
            gateway_v4: format!("10.{number}.0.1").parse().unwrap(),
            subnet_v6: Some(format!("fd00:{number}::/64").parse().unwrap()),
            gateway_v6: Some(format!("fd00:{number}::1").parse().unwrap()),
            gateway_mac: MacAddress::new([0x52, 0, 0, number, 0, 0]),
            dns: Vec::new(),
            domain: format!("net{number}.muster.internal"),
            mtu: 1450,
            members: vec![NetworkMember {
                node: NodeId::generate(),
                host_name: "web-0".to_owned(),
                mac,
                address_v4: has_address.then(|| format!("10.{number}.0.2").parse().unwrap()),
                address_v6: has_address.then(|| format!("fd00:{number}::2").parse().unwrap()),
                groups: Vec::new(),
            }],
            published: Vec::new(),
        };
        (NicAssignment { network: network.network, mac }, network)
    }

    #[test]
    fn a_guest_is_told_its_id_its_name_and_its_keys() {
        let keys = vec!["ssh-ed25519 AAAA \"me\": - {evil}\\".to_owned()];
        let seed = Seed { ssh_keys: keys.clone(), user_data: Some("#!/bin/sh\necho hi\n".to_owned()) };
        let files = seed_files(&assignment(), &seed, &[]).unwrap();
        let expected = json!({ "instance-id": "00000000-0000-0000-0000-000000000007", "local-hostname": "web-0",
            "public-keys": keys });
        assert_eq!(parsed(&files, "meta-data"), expected);
        assert_eq!(files[1], ("user-data", "#!/bin/sh\necho hi\n".to_owned()));
        assert_eq!(parsed(&files, "vendor-data")["bootcmd"][0][0], "cloud-init-per");
        assert_eq!(files.len(), 3, "without cards nothing is said of networks");
        let bare = seed_files(&assignment(), &Seed::default(), &[]).unwrap();
        assert_eq!(bare[1], ("user-data", "#cloud-config\n".to_owned()));
    }

    #[test]
    fn cards_have_the_addresses_that_the_controller_gave_and_one_way_out() {
        let bridge = NetworkMode::Bridge { bridge: "br0".to_owned() };
        let (nics, networks): (Vec<_>, Vec<_>) = [NetworkMode::Isolated, NetworkMode::Nat, NetworkMode::Nat, bridge]
            .into_iter()
            .zip(1..)
            .map(|(mode, number)| network(number, mode))
            .unzip();
        let wanted = Assignment { nics, ..assignment() };
        let config = parsed(&seed_files(&wanted, &Seed::default(), &networks).unwrap(), "network-config");
        let card = |number: u8| {
            json!({
                "match": { "macaddress": format!("52:00:00:0{number}:00:02") }, "set-name": format!("eth{}", number - 1),
                "mtu": 1450, "addresses": [format!("10.{number}.0.2/16"), format!("fd00:{number}::2/64")],
                "nameservers": { "addresses": [format!("10.{number}.0.1")], "search": [format!("net{number}.muster.internal")] },
            })
        };
        let mut way_out = card(2);
        way_out["routes"] = json!([{ "to": "0.0.0.0/0", "via": "10.2.0.1" }]);
        let asks =
            json!({ "match": { "macaddress": "52:00:00:04:00:02" }, "set-name": "eth3", "mtu": 1450, "dhcp4": true });
        let ethernets = json!({ "eth0": card(1), "eth1": way_out, "eth2": card(3), "eth3": asks });
        assert_eq!(config, json!({ "version": 2, "ethernets": ethernets }));
        let error = seed_files(&wanted, &Seed::default(), &networks[1..]).unwrap_err();
        assert_eq!(error, format!("the controller sent no network {}", networks[0].network));
    }
}
