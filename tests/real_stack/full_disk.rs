//! A full disk on a node. Users of a disk file get ENOSPC; guests are paused and go on when there is room again.
//! Nothing that was written before is lost.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::PathBuf, time::Duration};

use muster_api::{Reason, instance::InstanceState};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually, eventually_for_guests, guest};
use serde_json::json;

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_user_sees_enospc_and_earlier_data_stays_whole() {
    let mut options = ClusterOptions::files(1).as_processes();
    options.own_disk = Some("96m");
    let cluster = Cluster::start(options).await;
    let image = Pattern::striped(31, 256 * MIB, 4096, 16 * MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("wide", &file).await;
    let member = cluster.api.deploy_files("web", "wide", 1).await.remove(0);
    let disk =
        File::options().read(true).write(true).open(member.disks[0].path.clone().expect("a path")).expect("open");
    let block = |n: u64| (n + 1).to_le_bytes().repeat(8192);
    let mut full_at = None;
    for n in 0..256 * MIB / 65536 {
        match disk.write_all_at(&block(n), n * 65536) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                full_at = Some(n);
                break;
            }
            Err(other) => panic!("expected ENOSPC, got {other}"),
        }
    }
    let full_at = full_at.expect("the disk got full");
    assert!(full_at > 100, "full after {full_at} blocks");
    let mut got = vec![0; 65536];
    for n in 0..full_at {
        disk.read_exact_at(&mut got, n * 65536).expect("read");
        assert!(got == block(n), "block {n} was acknowledged and differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_held_and_goes_on_when_there_is_room() {
    let mut options = ClusterOptions::guests(1);
    options.own_disk = Some("400m");
    let cluster = Cluster::start(options).await;
    cluster.api.import("demo", &guest::demo_image()).await;
    let body = json!({ "name": "web", "source": { "image": "demo" }, "count": 1, "memory_bytes": 192_u64 << 20,
        "disk_bytes": 2048 * MIB });
    let member = cluster.deploy_guests(body).await.remove(0);
    let path = PathBuf::from(member.disks[0].path.clone().expect("a path"));
    let run = async |script: &str| {
        let (path, script) = (path.clone(), script.to_owned());
        tokio::task::spawn_blocking(move || guest::run(&guest::domain_of(&path)?, &script)).await.expect("no panic")
    };
    run("echo early > /kept; sync").await.expect("write");
    // A file leaves little room on the node; then the guest writes more than that to its disk, behind its file system.
    let filler = cluster.agents[0].dir.join("filler");
    let free = {
        let stat = rustix::fs::statvfs(&cluster.agents[0].dir).expect("statvfs");
        stat.f_bavail * stat.f_frsize
    };
    let room = 8 * MIB;
    let bytes = vec![1_u8; usize::try_from(MIB).expect("fits")];
    let file = File::create(&filler).expect("create the filler");
    for n in 0..(free - room) / MIB {
        file.write_all_at(&bytes, n * MIB).expect("fill");
    }
    let device = "dev=$(ls /dev/vda /dev/sda 2>/dev/null | head -n1)";
    run(&format!("{device}; (tr '\\0' x </dev/zero | dd of=$dev bs=1M iflag=fullblock seek=1100 count=64 conv=fsync; echo $? >/tmp/done) >/dev/null 2>&1 &"))
        .await
        .expect("start the writer");
    eventually_for_guests("held", &cluster.dir, Duration::from_secs(60), async || {
        let now = cluster.api.instances("web").await.remove(0);
        if now.state == InstanceState::Paused && now.reason == Some(Reason::DiskFull) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    drop(file);
    std::fs::remove_file(&filler).expect("make room");
    eventually("going on", Duration::from_secs(60), async || {
        let now = cluster.api.instances("web").await.remove(0);
        if now.state == InstanceState::Running { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let ended = async || match run("cat /tmp/done").await {
        Ok(code) if code.trim() == "0" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually_for_guests("the writer has ended well", &cluster.dir, Duration::from_secs(90), ended).await;
    assert_eq!(run("cat /kept").await.expect("read").trim(), "early");
}
