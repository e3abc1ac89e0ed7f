//! One suite for every hypervisor: the fake always, libvirt with a guest that really boots.
//!
//! The real part needs libvirtd, QEMU and the demo image (made here if `MUSTER_DEMO_IMAGE` names none); a missing part
//! fails the run, only `MUSTER_ALLOW_SKIP=1` lets it be skipped, loudly.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::guest_time::GuestTime;
use muster_agent::{
    hypervisor::{
        Acceleration, CardSpec, DiskSpec, Domain, DomainState, Ending, Hypervisor, HypervisorError, InstanceSpec,
        Owner, PauseReason, RunId, Started, UefiSpec,
        console::{self, Scan},
        domain_xml::{self, Place},
        fake::{FakeAgent, FakeHost, Guests},
        firmware::Build,
        guest_agent,
        libvirt::Libvirt,
    },
    network,
};
use muster_api::{
    ClusterId, DiskId, InstanceId, MacAddress, NodeId,
    guest::Guest,
    peer_protocol::{ExecAnswer, ExecRequest},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

/// What differs between the hypervisors under test.
struct Bench {
    hypervisor: Arc<dyn Hypervisor>,
    stranger: Arc<dyn Hypervisor>,
    spec: InstanceSpec,
    /// What the guest uses is below this folder.
    folder: PathBuf,
    /// Longest boot, in time that the guest could use.
    patience: Duration,
    /// Whether a command in the guest shows what the guest sees.
    inside: bool,
}

/// Cuts the power of what a failed test left.
struct Guard {
    hypervisor: Arc<dyn Hypervisor>,
    instance: InstanceId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (hypervisor, instance) = (self.hypervisor.clone(), self.instance);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = runtime.block_on(hypervisor.destroy(instance));
            // Otherwise the state of its TPM is left behind by a test that fails.
            let _ = runtime.block_on(hypervisor.discard(instance));
        })
        .join()
        .unwrap();
    }
}

/// Waits until `look` finds something. Time in which the guest waits for a processor does not count for the limit.
async fn eventually<T, F: Future<Output = Option<T>>>(
    bench: &Bench,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    let mut time = GuestTime::start(&bench.folder);
    loop {
        if let Some(found) = look().await {
            eprintln!("{what}: {} ms", started.elapsed().as_millis());
            return found;
        }
        assert!(time.used() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn ready(bench: &Bench, boot: u64) {
    let mut scan = Scan::new(boot);
    let log = bench.spec.console_log.clone();
    let started = Instant::now();
    let mut time = GuestTime::start(&bench.folder);
    while !scan.found(&log, "MUSTER-READY").unwrap() {
        assert!(
            time.used() < bench.patience,
            "no marker; the console says: {}",
            String::from_utf8_lossy(&console::tail(&log, 4000).unwrap())
        );
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    eprintln!("boot {boot} printed its marker after {} ms", started.elapsed().as_millis());
}

async fn only(hypervisor: &dyn Hypervisor, instance: InstanceId) -> Option<Domain> {
    let listed = hypervisor.list().await.unwrap();
    assert!(listed.iter().all(|domain| domain.instance == instance), "somebody else's domain: {listed:?}");
    listed.into_iter().next()
}

async fn gone(bench: &Bench, boot: u64, how: Ending) {
    let instance = bench.spec.instance;
    eventually(bench, "ended", Duration::from_secs(30), || async {
        only(&*bench.hypervisor, instance).await.is_none().then_some(())
    })
    .await;
    // The event may come a moment after the domain is gone.
    let known = || async { bench.hypervisor.ending(instance, boot) };
    assert_eq!(eventually(bench, "ending known", Duration::from_secs(5), known).await, how);
}

/// The contract of [`Hypervisor`], one boot after the other because each costs seconds under emulation.
async fn suite(bench: Bench) {
    let _guard = Guard { hypervisor: bench.hypervisor.clone(), instance: bench.spec.instance };
    let (hypervisor, instance) = (&*bench.hypervisor, bench.spec.instance);

    // Nothing there: stopping is fine, asking is not.
    assert_eq!(only(hypervisor, instance).await, None);
    hypervisor.destroy(instance).await.unwrap();
    assert!(matches!(hypervisor.open_screen(instance).await, Err(HypervisorError::NotRunning(_))));
    assert!(matches!(hypervisor.open_serial(instance).await, Err(HypervisorError::NotRunning(_))));
    assert!(matches!(hypervisor.resume(instance).await, Err(HypervisorError::NotRunning(_))));
    assert!(matches!(hypervisor.request_shutdown(instance).await, Err(HypervisorError::NotRunning(_))));
    assert_eq!(hypervisor.ending(instance, 1), None);
    let further = DiskSpec { disk: DiskId::generate(), path: bench.folder.join("further.raw") };
    assert!(matches!(hypervisor.plug(instance, further.clone()).await, Err(HypervisorError::NotRunning(_))));
    assert!(matches!(hypervisor.unplug(instance, further.disk).await, Err(HypervisorError::NotRunning(_))));
    assert!(matches!(hypervisor.resize(instance, further.disk, 4096).await, Err(HypervisorError::NotRunning(_))));

    // A start, the same again, and another one.
    let mut watch = hypervisor.watch();
    watch.mark_unchanged();
    assert_eq!(hypervisor.start(bench.spec.clone()).await.unwrap(), Started::Now);
    tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    // It waits until its card is in its place.
    let paused = only(hypervisor, instance).await.unwrap().state;
    assert!(matches!(paused, DomainState::Paused(PauseReason::Other(_))), "{paused:?}");
    let tap = Path::new("/sys/class/net").join(&bench.spec.cards[0].tap);
    assert!(tap.exists());
    hypervisor.resume(instance).await.unwrap();
    assert_eq!(hypervisor.start(bench.spec.clone()).await.unwrap(), Started::Already);
    let other = InstanceSpec { boot: 2, ..bench.spec.clone() };
    assert!(matches!(hypervisor.start(other).await, Err(HypervisorError::OtherStart { boot: 1, .. })));
    let domain = only(hypervisor, instance).await.unwrap();
    assert_eq!(
        (domain.instance, domain.generation, domain.boot, domain.run, domain.state),
        (instance, 3, 1, bench.spec.run, DomainState::Running)
    );
    assert_eq!(domain.disks, [bench.spec.disks[0].disk]);

    // A stranger's hands go through it.
    assert_eq!(bench.stranger.list().await.unwrap(), []);
    bench.stranger.destroy(instance).await.unwrap();
    assert!(matches!(bench.stranger.request_shutdown(instance).await, Err(HypervisorError::NotRunning(_))));
    assert!(only(hypervisor, instance).await.is_some());

    // Ready by all three probes, then a friendly stop.
    ready(&bench, 1).await;
    let answers = || async { guest_agent::ping(hypervisor, instance).await.ok() };
    eventually(&bench, "agent answers", Duration::from_secs(30), answers).await;
    a_guest_agent_is_worked_with(&bench).await;
    disks_come_grow_and_go(&bench, &further).await;
    // A screen, and a serial console that takes what is typed.
    let mut greeting = [0; 12];
    hypervisor.open_screen(instance).await.unwrap().read_exact(&mut greeting).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&greeting), "RFB 003.008\n");
    let mut serial = hypervisor.open_serial(instance).await.unwrap();
    serial.write_all(b": typed by hand\n").await.unwrap();
    let mut printed = Vec::new();
    let echoed = async {
        while !String::from_utf8_lossy(&printed).contains("typed by hand") {
            assert!(serial.read_buf(&mut printed).await.unwrap() > 0, "the console was closed");
        }
    };
    tokio::time::timeout(bench.patience, echoed).await.unwrap();
    drop(serial);

    watch.mark_unchanged();
    let asked = Instant::now();
    hypervisor.request_shutdown(instance).await.unwrap();
    gone(&bench, 1, Ending::Shutdown).await;
    eventually(&bench, "tap gone", Duration::from_secs(5), || async { (!tap.exists()).then_some(()) }).await;
    eprintln!("stopped gracefully within {} ms", asked.elapsed().as_millis());
    tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    assert!(matches!(guest_agent::ping(hypervisor, instance).await, Err(HypervisorError::NotRunning(_))));

    // The next start appends to the same log; its power is cut.
    hypervisor.start(InstanceSpec { boot: 2, ..bench.spec.clone() }).await.unwrap();
    hypervisor.resume(instance).await.unwrap();
    // Asked before an operating system runs, a guest does not answer. Asked again later, it does.
    hypervisor.plug(instance, further.clone()).await.unwrap();
    hypervisor.unplug(instance, further.disk).await.unwrap();
    ready(&bench, 2).await;
    let let_go = || async {
        hypervisor.unplug(instance, further.disk).await.unwrap();
        let domain = only(hypervisor, instance).await.unwrap();
        (!domain.disks.contains(&further.disk)).then_some(())
    };
    eventually(&bench, "the guest lets go of what it was asked for too early", Duration::from_secs(60), let_go).await;
    let log = String::from_utf8_lossy(&console::tail(&bench.spec.console_log, 1 << 20).unwrap()).into_owned();
    assert!(log.matches("MUSTER-READY").count() >= 2, "{log}");
    assert_eq!(log.matches("[muster] boot ").count(), 2, "{log}");
    hypervisor.destroy(instance).await.unwrap();
    gone(&bench, 2, Ending::Destroyed).await;
    hypervisor.destroy(instance).await.unwrap();
    hypervisor.discard(instance).await.unwrap();
    hypervisor.discard(instance).await.unwrap();
}

/// Runs a shell command in the guest and returns what it prints. `None` if it fails.
async fn inside(bench: &Bench, script: &str) -> Option<String> {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = ExecRequest { command, stdin_base64: None, timeout_s: 60 };
    let answer = guest_agent::exec(&*bench.hypervisor, bench.spec.instance, &request).await;
    let ExecAnswer::Ended(ended) = answer else { panic!("ended: {answer:?}") };
    let printed = BASE64_STANDARD.decode(ended.stdout_base64).unwrap();
    (ended.exit_code == Some(0)).then(|| String::from_utf8_lossy(&printed).trim().to_owned())
}

/// A guest gets a disk, writes to it, sees it grow, and lets go of it.
async fn disks_come_grow_and_go(bench: &Bench, further: &DiskSpec) {
    const MIB: u64 = 1 << 20;
    let (hypervisor, instance, disk) = (&*bench.hypervisor, bench.spec.instance, further.disk);
    let root = bench.spec.disks[0].disk;
    let disks = async || only(hypervisor, instance).await.unwrap().disks;
    let file = fs::File::create(&further.path).unwrap();
    file.set_len(16 * MIB).unwrap();
    fs::set_permissions(&further.path, fs::Permissions::from_mode(0o666)).unwrap();
    // The name of the device whose serial number is that of the disk.
    let serial = domain_xml::serial_number(disk);
    let device =
        format!("dev=$(grep -lx {serial} /sys/block/*/serial) && dev=${{dev#/sys/block/}} && dev=${{dev%/serial}}");
    let size = async || inside(bench, &format!("{device} && cat /sys/block/$dev/size")).await;
    let has_size = async |mib: u64| {
        let sectors = (mib * MIB / 512).to_string();
        let seen = || async { (size().await.as_ref() == Some(&sectors)).then_some(()) };
        eventually(bench, &format!("the guest sees {mib} MiB"), Duration::from_secs(60), seen).await;
    };

    let without = hypervisor.resize(instance, disk, 32 * MIB).await;
    assert!(matches!(without, Err(HypervisorError::Without { .. })), "{without:?}");
    hypervisor.unplug(instance, disk).await.unwrap();
    let mut watch = hypervisor.watch();
    watch.mark_unchanged();
    hypervisor.plug(instance, further.clone()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    assert_eq!(disks().await, [root, disk]);
    hypervisor.plug(instance, further.clone()).await.unwrap();
    assert_eq!(disks().await, [root, disk]);
    if bench.inside {
        has_size(16).await;
        inside(bench, &format!("{device} && echo by the guest | dd of=/dev/$dev conv=fsync")).await.expect("it writes");
        assert!(fs::read(&further.path).unwrap().starts_with(b"by the guest\n"));
    }
    file.set_len(48 * MIB).unwrap();
    hypervisor.resize(instance, disk, 48 * MIB).await.unwrap();
    hypervisor.resize(instance, disk, 48 * MIB).await.unwrap();
    if bench.inside {
        has_size(48).await;
        let at_the_end = format!("{device} && echo at the end | dd of=/dev/$dev bs=1M seek=47 conv=fsync");
        inside(bench, &at_the_end).await.expect("it writes where the disk has grown");
        assert!(fs::read(&further.path).unwrap()[47 << 20..].starts_with(b"at the end\n"));
    }
    hypervisor.unplug(instance, disk).await.unwrap();
    // Asked again before the guest has answered.
    hypervisor.unplug(instance, disk).await.unwrap();
    let gone = || async { (disks().await == [root]).then_some(()) };
    eventually(bench, "the guest lets go of its disk", Duration::from_secs(60), gone).await;
    hypervisor.unplug(instance, disk).await.unwrap();
    if bench.inside {
        assert_eq!(size().await, None, "the guest has it no more");
        // As many more as there are free slots, and the next one is refused and harms nothing.
        let mut more = Vec::new();
        let refused = loop {
            let one =
                DiskSpec { disk: DiskId::generate(), path: bench.folder.join(format!("more-{}.raw", more.len())) };
            fs::File::create(&one.path).unwrap().set_len(MIB).unwrap();
            fs::set_permissions(&one.path, fs::Permissions::from_mode(0o666)).unwrap();
            match hypervisor.plug(instance, one.clone()).await {
                Ok(()) => more.push(one.disk),
                Err(error) => break error,
            }
        };
        eprintln!("{} disks are plugged in, the next one: {refused}", more.len());
        assert_eq!(more.len(), 8);
        assert!(matches!(refused, HypervisorError::Refused { .. }), "{refused:?}");
        let all: Vec<DiskId> = std::iter::once(root).chain(more).collect();
        assert_eq!(disks().await, all);
    }
}

/// A guest that does not answer keeps its disk; it may let go of it later.
#[tokio::test]
async fn a_disk_of_the_fake_stays_until_its_guest_lets_go_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    host.set_guests(Guests { lets_go: false, ..Guests::default() });
    let hypervisor = host.hypervisor(somebody());
    let spec = spec(dir.path(), "a.raw".into());
    let (instance, disk) = (spec.instance, spec.disks[0].disk);
    hypervisor.start(spec).await.unwrap();
    hypervisor.unplug(instance, disk).await.unwrap();
    assert_eq!(only(&hypervisor, instance).await.unwrap().disks, [disk]);
    host.let_go(instance);
    assert_eq!(only(&hypervisor, instance).await.unwrap().disks, []);
}

/// File systems are frozen and thawed, a command is run, and the guest tells about itself.
async fn a_guest_agent_is_worked_with(bench: &Bench) {
    let (hypervisor, instance) = (&*bench.hypervisor, bench.spec.instance);
    let limit = Duration::from_secs(30);
    assert!(!guest_agent::is_frozen(hypervisor, instance).await.unwrap());
    let frozen = guest_agent::freeze(hypervisor, instance, limit).await.unwrap();
    assert!(frozen > 0, "it has a file system that can be frozen");
    assert!(guest_agent::is_frozen(hypervisor, instance).await.unwrap());
    let exec = async |command: &[&str]| {
        let command = command.iter().map(ToString::to_string).collect();
        let request = ExecRequest { command, stdin_base64: Some("aW4=".to_owned()), timeout_s: 60 };
        guest_agent::exec(hypervisor, instance, &request).await
    };
    // While it is frozen it does nothing else.
    let refused = exec(&["/bin/true"]).await;
    assert!(matches!(refused, ExecAnswer::Refused(_)), "{refused:?}");
    assert_eq!(guest_agent::thaw(hypervisor, instance, limit).await.unwrap(), frozen);
    assert_eq!(guest_agent::thaw(hypervisor, instance, limit).await.unwrap(), 0);
    let ended = exec(&["/bin/sh", "-c", "cat; echo err >&2; exit 3"]).await;
    let ExecAnswer::Ended(ended) = ended else { panic!("ended: {ended:?}") };
    assert_eq!((ended.exit_code, &*ended.stdout_base64, &*ended.stderr_base64), (Some(3), "aW4=", "ZXJyCg=="));
    let guest = guest_agent::facts(hypervisor, instance, Guest::default()).await.unwrap();
    eprintln!("the guest tells {guest:?}");
    assert!(guest.answers && guest.agent_version.is_some(), "{guest:?}");
    assert!(guest.file_systems.iter().any(|mounted| mounted.mount == "/" && mounted.kind == "ext4"), "{guest:?}");
}

fn spec(dir: &Path, disk: PathBuf) -> InstanceSpec {
    InstanceSpec {
        instance: InstanceId::generate(),
        generation: 3,
        boot: 1,
        run: RunId::generate(),
        name: "web.1".to_owned(),
        host_name: "web-1".to_owned(),
        project: "default".to_owned(),
        cpus: 1,
        memory_bytes: 160 << 20,
        disks: vec![DiskSpec { disk: DiskId::generate(), path: disk }],
        uefi: None,
        tpm: true,
        seed: None,
        cards: vec![card()],
        console_log: dir.join("console/web.log"),
        console_socket: Some(dir.join("console/web.sock")),
    }
}

/// A card whose tap nobody else has.
fn card() -> CardSpec {
    let mac = MacAddress::new([0x52, 0, 0, 7, 0, 5]);
    CardSpec { tap: network::tap(NodeId::generate(), mac), mac, mtu: 1450 }
}

fn somebody() -> Owner {
    Owner { cluster: ClusterId::generate(), node: NodeId::generate() }
}

#[tokio::test]
async fn fake_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    host.set_makes_taps();
    let mut agents = FakeAgent::default();
    agents.answers.insert("guest-info", json!({ "version": "7.2" }));
    agents.answers.insert("guest-exec", json!({ "pid": 7 }));
    let ended = json!({ "exited": true, "exitcode": 3, "out-data": "aW4=", "err-data": "ZXJyCg==" });
    agents.answers.insert("guest-exec-status", ended);
    agents.answers.insert("guest-get-fsinfo", json!([{ "mountpoint": "/", "type": "ext4" }]));
    host.set_guest_agents(agents);
    suite(Bench {
        hypervisor: Arc::new(host.hypervisor(somebody())),
        stranger: Arc::new(host.hypervisor(somebody())),
        spec: spec(dir.path(), dir.path().join("disk.raw")),
        folder: dir.path().to_owned(),
        patience: Duration::from_secs(1),
        inside: false,
    })
    .await;
}

#[tokio::test]
async fn a_hanging_instance_of_the_fake_does_not_delay_another() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost::default();
    let hypervisor = host.hypervisor(somebody());
    let (slow, quick) = (
        spec(dir.path(), "a.raw".into()),
        InstanceSpec { instance: InstanceId::generate(), ..spec(dir.path(), "b.raw".into()) },
    );
    host.hang(slow.instance);
    let instance = slow.instance;
    let hung = tokio::spawn({
        let hypervisor = hypervisor.clone();
        async move { hypervisor.start(slow).await }
    });
    assert_eq!(hypervisor.start(quick).await.unwrap(), Started::Now);
    assert!(!hung.is_finished());
    host.unhang(instance);
    assert_eq!(hung.await.unwrap().unwrap(), Started::Now);
}

/// The demo image: what `MUSTER_DEMO_IMAGE` names, else made now.
fn demo_image(dir: &Path) -> Option<PathBuf> {
    let out = dir.join("demo.raw");
    match std::env::var_os("MUSTER_DEMO_IMAGE") {
        Some(made) => {
            let copied = Command::new("cp").arg("--sparse=auto").arg(made).arg(&out).status().unwrap();
            assert!(copied.success());
        }
        None => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo-image.sh");
            let made = Command::new(script).arg(&out).status().unwrap();
            if !made.success() {
                return None;
            }
        }
    }
    // QEMU's user opens it; the mirror's files belong to that user already.
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).unwrap();
    Some(out)
}

fn skip(why: &str) {
    assert!(std::env::var_os("MUSTER_ALLOW_SKIP").is_some(), "{why} (MUSTER_ALLOW_SKIP=1 skips this test)");
    eprintln!("SKIPPED, libvirt was not tested: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_keeps_the_contract() {
    let dir = tempfile::Builder::new()
        .prefix("muster-suite")
        .tempdir_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()))
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let hypervisor = match Libvirt::connect(somebody(), Acceleration::Qemu).await {
        Ok(hypervisor) => Arc::new(hypervisor),
        Err(error) => return skip(&error.to_string()),
    };
    let stranger = Arc::new(Libvirt::connect(somebody(), Acceleration::Qemu).await.unwrap());
    let Some(image) = demo_image(dir.path()) else { return skip("no demo image") };
    let (spec, folder) = (spec(dir.path(), image), dir.path().to_owned());
    let tpm = Path::new("/var/lib/libvirt/swtpm").join(spec.instance.to_string());
    suite(Bench { hypervisor, stranger, spec, folder, patience: Duration::from_secs(120), inside: true }).await;
    assert!(!tpm.exists(), "the state of the TPM is left in {}", tpm.display());
}

#[tokio::test]
async fn no_libvirt_is_said_at_once() {
    let error = Libvirt::connect_to("qemu+unix:///system?socket=/nowhere/libvirt-sock", somebody(), Acceleration::Qemu)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, HypervisorError::Unavailable { .. }), "{error}");
}

/// Compares with `tests/golden/NAME`; `MUSTER_BLESS=1` writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("MUSTER_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
}

fn fixed_spec() -> InstanceSpec {
    let id = |n: u128| Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n);
    InstanceSpec {
        instance: id(1).into(),
        generation: 2,
        boot: 7,
        run: id(2).into(),
        name: "web.1".to_owned(),
        host_name: "web-1".to_owned(),
        project: "default".to_owned(),
        cpus: 2,
        memory_bytes: 512 << 20,
        disks: vec![
            DiskSpec { disk: id(3).into(), path: "/var/lib/muster/disks/a.raw".into() },
            DiskSpec { disk: id(4).into(), path: "/var/lib/o'malley & <sons>/b.raw".into() },
        ],
        uefi: None,
        tpm: false,
        seed: Some("/var/lib/muster/seeds/i.img".into()),
        cards: vec![CardSpec {
            tap: "mt0123456789abc".to_owned(),
            mac: MacAddress::new([0x52, 0, 0, 7, 0, 5]),
            mtu: 1450,
        }],
        console_log: "/var/lib/muster/console/i.log".into(),
        console_socket: Some("/var/lib/muster/console/i.sock".into()),
    }
}

fn fixed_place(acceleration: Acceleration) -> Place<'static> {
    let id = |n: u128| Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n);
    Place {
        owner: Owner { cluster: id(5).into(), node: id(6).into() },
        acceleration,
        name: "muster-01900000-0000-7000-8000-000000000001",
        uuid: id(1),
    }
}

#[test]
fn domain_xml_is_as_agreed() {
    golden("domain-qemu.xml", &domain_xml::domain_xml(&fixed_spec(), &fixed_place(Acceleration::Qemu)));
    golden("domain-kvm.xml", &domain_xml::domain_xml(&fixed_spec(), &fixed_place(Acceleration::Kvm)));
    let build = Build {
        code: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd".into(),
        template: "/usr/share/OVMF/OVMF_VARS_4M.ms.fd".into(),
        secure: true,
    };
    let uefi = Some(UefiSpec { build, variables: "/var/lib/muster/disks/n.raw".into() });
    let spec = InstanceSpec { uefi, tpm: true, ..fixed_spec() };
    golden("domain-uefi.xml", &domain_xml::domain_xml(&spec, &fixed_place(Acceleration::Kvm)));
}

#[test]
fn a_host_name_cannot_add_a_device() {
    let plain = domain_xml::domain_xml(&fixed_spec(), &fixed_place(Acceleration::Qemu));
    let spec = InstanceSpec { host_name: "</entry></chassis></sysinfo><disk/>".to_owned(), ..fixed_spec() };
    let evil = domain_xml::domain_xml(&spec, &fixed_place(Acceleration::Qemu));
    assert_eq!(plain.matches('<').count(), evil.matches('<').count());
}
