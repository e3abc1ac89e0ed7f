//! Makes libvirt's domain XML from an [`InstanceSpec`], and reads the [`Mark`] of a domain back from its metadata.
//! Pure; its golden files are in `tests/golden/`.
//!
//! All data is written by [`Xml`], which escapes it, so that for example a host name cannot add a device.

use std::{fmt::Write as _, str::FromStr};

use muster_api::{DiskId, InstanceId};
use uuid::Uuid;

use super::{Acceleration, DiskSpec, InstanceSpec, Owner, RunId, UefiSpec};

/// XML namespace of the metadata element that marks a domain.
pub const METADATA_URI: &str = "https://muster.example/libvirt/1";
/// Name of the channel to the QEMU guest agent.
pub const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// How QEMU does I/O on the disk files. Measured with `qemu-img bench` on a mount with 4 KiB requests: reads are
/// equally fast with `native` and `io_uring`; writes at depth 16 are a quarter slower with `io_uring`, because the
/// kernel hands each to its own worker thread. `native` also works where a seccomp policy forbids `io_uring`.
const DISK_IO: &str = "native";

/// Memory of the screen, KiB: enough for 2560 x 1600 points. Every guest has a driver for this kind of screen.
const VIDEO_KIB: &str = "16384";

/// Slots that stay free, so that the guest can get as many further disks while it runs. Each costs the guest a little time
/// when it looks for its devices.
const FREE_SLOTS: usize = 8;

/// Serial number of the seed disk.
const SEED_SERIAL: &str = "cidata";

/// What the XML of a domain needs beside its [`InstanceSpec`].
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Owner of the domain, written into its metadata.
    pub owner: Owner,
    /// What executes its instructions; the `type` of the domain.
    pub acceleration: Acceleration,
    /// Name of the domain in libvirt, see [`domain_name`].
    pub name: &'a str,
    /// UUID of the domain in libvirt.
    pub uuid: Uuid,
}

/// The name a domain has unless another domain has it already.
#[must_use]
pub fn domain_name(instance: InstanceId) -> String {
    format!("muster-{instance}")
}

/// The metadata that marks a domain as one of Muster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Owner of the domain; others leave the domain alone.
    pub owner: Owner,
    /// The instance that the domain runs.
    pub instance: InstanceId,
    /// Generation of the assignment it was started with.
    pub generation: u64,
    /// Number of this start of the instance.
    pub boot: u64,
    /// The agent process that started it.
    pub run: RunId,
}

impl Mark {
    /// Reads the metadata element as libvirt returns it; `None` if it is of another program or another form.
    #[must_use]
    pub fn parse(element: &str) -> Option<Self> {
        fn read<T: FromStr>(element: &str, name: &str) -> Option<T> {
            attribute(element, name)?.parse().ok()
        }
        Some(Self {
            owner: Owner { cluster: read(element, "cluster")?, node: read(element, "node")? },
            instance: read(element, "instance")?,
            generation: read(element, "generation")?,
            boot: read(element, "boot")?,
            run: read::<Uuid>(element, "run")?.into(),
        })
    }
}

/// The value of an attribute of the first element. It does not unescape, because the values here are ids and numbers.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let tag = element.get(..element.find('>')?)?;
    let mut rest = tag;
    loop {
        let at = rest.find(name)?;
        let before = rest.get(..at)?;
        rest = rest.get(at + name.len()..)?;
        if !before.ends_with(char::is_whitespace) {
            continue;
        }
        let Some(value) = rest.trim_start().strip_prefix('=') else { continue };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        return value.get(1..)?.split(quote).next();
    }
}

/// The path of the socket of the serial console, from the XML of a domain as libvirt returns it; `None` if it has none.
#[must_use]
pub fn serial_socket(xml: &str) -> Option<&str> {
    let serial = xml.split_once("<serial type='unix'>")?.1.split_once("</serial>")?.0;
    attribute(&serial[serial.find("<source ")?..], "path")
}

/// Makes the XML of a domain.
#[must_use]
pub fn domain_xml(spec: &InstanceSpec, place: &Place<'_>) -> String {
    let mut xml = Xml::default();
    xml.nest("domain", &[("type", place.acceleration.as_str())], |xml| {
        xml.text("name", place.name);
        xml.text("uuid", &place.uuid.hyphenated().to_string());
        xml.text("title", &spec.name);
        metadata(xml, spec, place.owner);
        xml.text_with("memory", &[("unit", "b")], &spec.memory_bytes.to_string());
        xml.text_with("vcpu", &[("placement", "static")], &spec.cpus.to_string());
        smbios(xml, spec);
        xml.nest("os", &[], |xml| {
            xml.text_with("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm");
            if let Some(UefiSpec { build, variables }) = &spec.uefi {
                let secure = if build.secure { "yes" } else { "no" };
                let loader = [("readonly", "yes"), ("secure", secure), ("type", "pflash")];
                xml.text_with("loader", &loader, &build.code.to_string_lossy());
                xml.text("nvram", &variables.to_string_lossy());
            }
            xml.empty("boot", &[("dev", "hd")]);
            xml.empty("smbios", &[("mode", "sysinfo")]);
        });
        xml.nest("features", &[], |xml| {
            xml.empty("acpi", &[]);
            xml.empty("apic", &[]);
            // Without it a guest could write the variables that say which keys sign boot loaders.
            if spec.uefi.as_ref().is_some_and(|uefi| uefi.build.secure) {
                xml.empty("smm", &[("state", "on")]);
            }
        });
        match place.acceleration {
            Acceleration::Kvm => xml.empty("cpu", &[("mode", "host-passthrough"), ("check", "none")]),
            Acceleration::Qemu => xml.empty("cpu", &[("mode", "maximum"), ("check", "none")]),
        }
        xml.empty("clock", &[("offset", "utc")]);
        // The domain ends when the guest turns itself off. If the guest reboots, its domain and boot number stay.
        xml.text("on_poweroff", "destroy");
        xml.text("on_reboot", "restart");
        xml.text("on_crash", "destroy");
        xml.nest("devices", &[], |xml| devices(xml, spec));
    });
    xml.finish()
}

fn metadata(xml: &mut Xml, spec: &InstanceSpec, owner: Owner) {
    xml.nest("metadata", &[], |xml| {
        xml.empty(
            "muster:instance",
            &[
                ("xmlns:muster", METADATA_URI),
                ("cluster", &owner.cluster.to_string()),
                ("node", &owner.node.to_string()),
                ("instance", &spec.instance.to_string()),
                ("generation", &spec.generation.to_string()),
                ("boot", &spec.boot.to_string()),
                ("run", &spec.run.to_string()),
            ],
        );
    });
}

/// Data that a guest can read about itself without a network, in `/sys/class/dmi/id/*`.
fn smbios(xml: &mut Xml, spec: &InstanceSpec) {
    xml.nest("sysinfo", &[("type", "smbios")], |xml| {
        xml.nest("system", &[], |xml| {
            xml.text_with("entry", &[("name", "manufacturer")], "Muster");
            xml.text_with("entry", &[("name", "product")], "Muster instance");
            xml.text_with("entry", &[("name", "serial")], &spec.instance.to_string());
            xml.text_with("entry", &[("name", "sku")], &spec.name);
            xml.text_with("entry", &[("name", "family")], &spec.project);
        });
        xml.nest("chassis", &[], |xml| {
            xml.text_with("entry", &[("name", "manufacturer")], "Muster");
            // The host name is in this field because guests can read it without privileges, unlike serial numbers.
            xml.text_with("entry", &[("name", "asset")], &spec.host_name);
        });
    });
}

fn devices(xml: &mut Xml, spec: &InstanceSpec) {
    let mut targets = target_names();
    for (disk, target) in spec.disks.iter().zip(targets.by_ref()) {
        disk_device(xml, disk, &target);
    }
    if let (Some(seed), Some(target)) = (&spec.seed, targets.next()) {
        xml.nest("disk", &[("type", "file"), ("device", "disk")], |xml| {
            xml.empty("driver", &[("name", "qemu"), ("type", "raw")]);
            xml.nest("source", &[("file", &seed.to_string_lossy())], |xml| {
                // It belongs to QEMU's user already.
                xml.empty("seclabel", &[("model", "dac"), ("relabel", "no")]);
            });
            xml.empty("target", &[("dev", &target), ("bus", "virtio")]);
            xml.empty("readonly", &[]);
            xml.text("serial", SEED_SERIAL);
        });
    }
    for card in &spec.cards {
        xml.nest("interface", &[("type", "ethernet")], |xml| {
            xml.empty("mac", &[("address", &card.mac.to_string())]);
            xml.empty("target", &[("dev", &card.tap)]);
            xml.empty("model", &[("type", "virtio")]);
            xml.empty("mtu", &[("size", &card.mtu.to_string())]);
        });
    }
    // Each disk and card, the console's controller and the source of random numbers have a slot of their own.
    let slots = spec.disks.len() + usize::from(spec.seed.is_some()) + spec.cards.len() + 2 + FREE_SLOTS;
    // Number 0 is the root itself.
    for index in 1..=slots {
        xml.empty("controller", &[("type", "pci"), ("index", &index.to_string()), ("model", "pcie-root-port")]);
    }
    xml.empty("controller", &[("type", "usb"), ("model", "none")]);
    xml.empty("controller", &[("type", "virtio-serial"), ("index", "0")]);
    xml.nest("serial", &[("type", if spec.console_socket.is_some() { "unix" } else { "pty" })], |xml| {
        if let Some(socket) = &spec.console_socket {
            xml.empty("source", &[("mode", "bind"), ("path", &socket.to_string_lossy())]);
        }
        xml.empty("log", &[("file", &spec.console_log.to_string_lossy()), ("append", "on")]);
        xml.empty("target", &[("type", "isa-serial"), ("port", "0")]);
    });
    xml.nest("channel", &[("type", "unix")], |xml| {
        xml.empty("target", &[("type", "virtio"), ("name", AGENT_CHANNEL)]);
    });
    // The agent gets connections to the screen from libvirt, so QEMU listens nowhere.
    xml.nest("graphics", &[("type", "vnc")], |xml| xml.empty("listen", &[("type", "none")]));
    xml.nest("video", &[], |xml| xml.empty("model", &[("type", "vga"), ("vram", VIDEO_KIB)]));
    xml.empty("memballoon", &[("model", "none")]);
    xml.nest("rng", &[("model", "virtio")], |xml| {
        xml.text_with("backend", &[("model", "random")], "/dev/urandom");
    });
    if spec.tpm {
        tpm(xml, "yes");
    }
    // With this device a guest that panics ends as crashed, not as turned off.
    xml.empty("panic", &[("model", "isa")]);
}

/// A disk as a device.
fn disk_device(xml: &mut Xml, disk: &DiskSpec, target: &str) {
    xml.nest("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty(
            "driver",
            &[
                ("name", "qemu"),
                ("type", "raw"),
                ("cache", "none"),
                ("error_policy", "stop"),
                ("rerror_policy", "stop"),
                ("io", DISK_IO),
                ("discard", "unmap"),
                ("detect_zeroes", "unmap"),
            ],
        );
        xml.nest("source", &[("file", &disk.path.to_string_lossy())], |xml| {
            // The file is a mount of the agent and belongs to QEMU's user already, so libvirt must not change its
            // owner.
            xml.empty("seclabel", &[("model", "dac"), ("relabel", "no")]);
        });
        xml.empty("target", &[("dev", target), ("bus", "virtio")]);
        xml.empty("blockio", &[("logical_block_size", "512"), ("physical_block_size", "4096")]);
        xml.text("serial", &serial_number(disk.disk));
        xml.empty("alias", &[("name", &alias(disk.disk))]);
    });
}

/// The serial number of a disk. One of virtio-blk has at most 20 bytes. It is the end of the disk's id: ids that are made
/// in the same millisecond have the same beginning.
#[must_use]
pub fn serial_number(disk: DiskId) -> String {
    disk.uuid().simple().to_string().split_off(12)
}

/// Names a disk in its domain. libvirt keeps names that begin like this.
#[must_use]
pub fn alias(disk: DiskId) -> String {
    format!("ua-{disk}")
}

/// A disk for a domain that runs.
#[must_use]
pub fn disk_xml(disk: &DiskSpec, target: &str) -> String {
    let mut xml = Xml::default();
    disk_device(&mut xml, disk, target);
    xml.finish()
}

/// A disk in the XML of a domain as libvirt returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDevice<'a> {
    /// The disk; `None` if it is none of an instance, such as a seed.
    pub disk: Option<DiskId>,
    /// Its name in the domain, for example `vdb`.
    pub target: &'a str,
}

/// The disks in the XML of a domain as libvirt returns it.
#[must_use]
pub fn disk_devices(xml: &str) -> Vec<DiskDevice<'_>> {
    let blocks = xml.split("<disk ").skip(1).filter_map(|rest| Some(rest.split_once("</disk>")?.0));
    blocks
        .filter_map(|block| {
            let target = attribute(block.get(block.find("<target ")?..)?, "dev")?;
            let alias = block.find("<alias ").and_then(|at| attribute(block.get(at..)?, "name"));
            Some(DiskDevice { disk: alias.and_then(|alias| alias.strip_prefix("ua-")?.parse().ok()), target })
        })
        .collect()
}

/// A name for one more disk of the domain with this XML, as libvirt returns it.
#[must_use]
pub fn free_target(xml: &str) -> Option<String> {
    let taken = disk_devices(xml);
    target_names().find(|name| taken.iter().all(|device| device.target != name))
}

/// A TPM. `persistent` says whether libvirt keeps its state when the domain ends.
fn tpm(xml: &mut Xml, persistent: &str) {
    xml.nest("tpm", &[("model", "tpm-crb")], |xml| {
        xml.empty("backend", &[("type", "emulator"), ("version", "2.0"), ("persistent_state", persistent)]);
    });
}

/// A domain that is never started. libvirt forgets the state of its TPM with it.
#[must_use]
pub fn tpm_holder_xml(acceleration: Acceleration, name: &str, uuid: Uuid) -> String {
    let mut xml = Xml::default();
    xml.nest("domain", &[("type", acceleration.as_str())], |xml| {
        xml.text("name", name);
        xml.text("uuid", &uuid.hyphenated().to_string());
        xml.text_with("memory", &[("unit", "MiB")], "1");
        xml.nest("os", &[], |xml| xml.text_with("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm"));
        xml.nest("devices", &[], |xml| tpm(xml, "no"));
    });
    xml.finish()
}

/// The device names of disks: vda, vdb, …, vdz, vdaa, …
fn target_names() -> impl Iterator<Item = String> {
    let letters = || ('a'..='z').map(String::from);
    letters().chain(letters().flat_map(move |a| letters().map(move |b| format!("{a}{b}")))).map(|l| format!("vd{l}"))
}

/// Writes elements. All attribute values and texts pass through [`escape`].
#[derive(Default)]
struct Xml {
    out: String,
    depth: usize,
}

impl Xml {
    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let _ = write!(self.out, "{:indent$}<{name}", "", indent = self.depth * 2);
        for (key, value) in attributes {
            let _ = write!(self.out, " {key}='{}'", escape(value));
        }
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.open(name, attributes);
        self.out.push_str("/>\n");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.text_with(name, &[], text);
    }

    fn text_with(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        let _ = writeln!(self.out, ">{}</{name}>", escape(text));
    }

    fn nest(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Self)) {
        self.open(name, attributes);
        self.out.push_str(">\n");
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        let _ = writeln!(self.out, "{:indent$}</{name}>", "", indent = self.depth * 2);
    }

    fn finish(self) -> String {
        self.out
    }
}

/// Escapes text for an element, or for an attribute in single or double quotes. Characters that XML 1.0 does not allow
/// become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use muster_api::{ClusterId, NodeId};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_cannot_become_markup() {
        let mut xml = Xml::default();
        xml.text_with("a", &[("b", "'/><disk x=\"")], "</a><x>&\u{1}\n");
        assert_eq!(xml.finish(), "<a b='&apos;/&gt;&lt;disk x=&quot;'>&lt;/a&gt;&lt;x&gt;&amp;\u{fffd}&#10;</a>\n");
    }

    #[test]
    fn disks_have_the_names_that_linux_gives_them() {
        let names: Vec<String> = target_names().take(28).collect();
        assert_eq!((&*names[0], &*names[25], &*names[26], &*names[27]), ("vda", "vdz", "vdaa", "vdab"));
    }

    #[test]
    fn disks_of_one_moment_have_different_serial_numbers() {
        let disks: Vec<String> = (0..100).map(|_| serial_number(DiskId::generate())).collect();
        assert!(disks.iter().all(|serial| serial.len() == 20));
        let different: std::collections::BTreeSet<&String> = disks.iter().collect();
        assert_eq!(different.len(), disks.len());
    }

    #[test]
    fn disks_are_found_in_the_xml_of_a_domain_and_get_the_first_free_name() {
        let disk = DiskId::generate();
        let xml = format!(
            "<disk type='file' device='disk'>\n<target dev='vda' bus='virtio'/>\n<alias name='ua-{disk}'/>\n</disk>\n\
             <disk type='file' device='disk'><target dev='vdc' bus='virtio'/><alias name='virtio-disk2'/></disk>"
        );
        let found = disk_devices(&xml);
        let expected = [DiskDevice { disk: Some(disk), target: "vda" }, DiskDevice { disk: None, target: "vdc" }];
        assert_eq!(found, expected);
        assert_eq!(free_target(&xml).as_deref(), Some("vdb"));
        assert_eq!(disk_devices("<disk type='file'><target dev='vda'"), []);
    }

    #[test]
    fn the_socket_of_the_serial_console_is_found() {
        let xml = "<serial type='unix'>\n  <source mode='bind' path='/d/console/1.sock'/>\n  <log file='/d/1.log'/>\n</serial>";
        assert_eq!(serial_socket(xml), Some("/d/console/1.sock"));
        for without in ["<serial type='pty'><source path='/dev/pts/1'/></serial>", "<serial type='unix'></serial>", ""]
        {
            assert_eq!(serial_socket(without), None, "{without}");
        }
    }

    #[test]
    fn foreign_metadata_gives_no_mark() {
        for text in ["", "<a/>", "<a cluster='x' node='y'/>", "<muster:instance boot=", "<é instance"] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_back_as_libvirt_returns_it(a: u128, b: u128, c: u128, d: u128, generation: u64, boot: u64, quote in "['\"]") {
            let text = format!(
                "<muster:instance xmlns:muster={q}{METADATA_URI}{q} cluster={q}{}{q}\n node={q}{}{q} instance={q}{}{q} \
                 generation={q}{generation}{q} boot = {q}{boot}{q} run={q}{}{q}/>",
                Uuid::from_u128(a), Uuid::from_u128(b), Uuid::from_u128(c), Uuid::from_u128(d), q = quote,
            );
            let mark = Mark::parse(&text).unwrap();
            prop_assert_eq!(mark, Mark {
                owner: Owner { cluster: ClusterId::from(Uuid::from_u128(a)), node: NodeId::from(Uuid::from_u128(b)) },
                instance: Uuid::from_u128(c).into(), generation, boot, run: Uuid::from_u128(d).into(),
            });
        }

        #[test]
        fn any_metadata_is_read_without_a_panic(text: String) {
            let _ = Mark::parse(&text);
        }
    }
}
