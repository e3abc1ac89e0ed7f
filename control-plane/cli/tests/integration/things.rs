//! Objects as the controller sends them: every field that is always there, and one that this program does not know.

use serde_json::{Value, json};

pub(crate) const AT: &str = "2026-01-01T00:00:00Z";
pub(crate) const IMAGE_ID: &str = "01900000-0000-7000-8000-000000000001";
pub(crate) const VERSION_ID: &str = "01900000-0000-7000-8000-000000000002";
pub(crate) const DEPLOYMENT_ID: &str = "01900000-0000-7000-8000-000000000003";
pub(crate) const INSTANCE_ID: &str = "01900000-0000-7000-8000-000000000004";
pub(crate) const SNAPSHOT_ID: &str = "01900000-0000-7000-8000-000000000005";
pub(crate) const OPERATION_ID: &str = "01900000-0000-7000-8000-000000000006";
pub(crate) const NETWORK_ID: &str = "01900000-0000-7000-8000-000000000008";
pub(crate) const OTHER_ID: &str = "01900000-0000-7000-8000-000000000007";

/// The object with these fields set.
pub(crate) fn with(mut object: Value, fields: Value) -> Value {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

pub(crate) fn image(name: &str) -> Value {
    json!({"id": IMAGE_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "chunk_bytes": 262_144, "newest_number": 2,
        "newest_version": VERSION_ID, "size_bytes": 1 << 30, "version_count": 2, "os": "debian-12", "default_user": "debian",
        "min_disk_bytes": 1 << 30, "min_memory_bytes": 1 << 29, "new_field": [1]})
}

pub(crate) fn version(name: &str) -> Value {
    json!({"id": VERSION_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "image": IMAGE_ID, "image_name": "debian", "number": 1,
        "instance": null, "instance_name": null, "disk": null, "disk_name": null, "snapshot": null, "snapshot_name": null,
        "size_bytes": 8 << 20, "chunk_bytes": 262_144, "root": "00", "digest": null, "parent": null, "stored_bytes": 2 << 20,
        "new_field": [1]})
}

pub(crate) fn deployment(name: &str) -> Value {
    let step = |ms: u64| {
        json!({"p50_ms": ms, "p90_ms": ms, "p99_ms": ms,
            "slowest": [{"instance": INSTANCE_ID, "instance_name": format!("{name}.1"), "ms": ms}]})
    };
    json!({"id": DEPLOYMENT_ID, "name": name, "project": "default", "labels": {"tier": "front"}, "state": "ready",
        "reason": null, "created_at": AT, "updated_at": AT, "etag": "1",
        "source": {"image": IMAGE_ID, "version": 2}, "source_name": "debian", "count": 2, "min_count": 2, "cpus": 1,
        "memory_bytes": 512 << 20, "disk_bytes": 1 << 30, "runtime": "libvirt",
        "disks": [{"name": "data", "size_bytes": 2_u64 << 30, "source": {"image": IMAGE_ID, "version": 3}, "source_name": "dataset", "new_field": [1]}],
        "ready_when": {"probe": "running", "timeout_s": 300}, "on_ready_timeout": "keep", "on_host_start": "start", "placement": {"policy": "spread"},
        "protect": null, "protection": null,
        "counts": {"running": 2}, "ready": 2,
        "timing": {"placed": step(10), "started": step(900), "ready": step(2100)}, "version": VERSION_ID,
        "new_field": [1]})
}

pub(crate) fn instance(name: &str) -> Value {
    let instance = json!({"id": INSTANCE_ID, "name": name, "host_name": "web-0", "project": "default", "labels": {},
        "state": "running", "reason": null, "detail": null, "created_at": AT, "updated_at": AT, "etag": "1",
        "deployment": DEPLOYMENT_ID, "deployment_name": "web", "number": 0, "cpus": 1, "memory_bytes": 512 << 20,
        "runtime": "libvirt", "ready_at": AT, "boots": 2, "last_reason": "guest_rebooted", "last_reason_at": AT, "steps": {"requested_at": AT, "placed_at": AT, "disk_at": AT, "started_at": AT},
        "disks": [{"id": OTHER_ID, "name": "root", "state": "attached", "size_bytes": 1 << 30, "version": VERSION_ID, "unsaved_bytes": 0,
            "saved_at": AT}],
        "nics": [{"network": NETWORK_ID, "network_name": "back", "mac": "52:00:00:01:00:05", "address_v4": "10.20.0.5",
            "address_v6": null, "security_groups": [OTHER_ID], "security_group_names": ["web"],
            "ports": [{"node_address": "192.0.2.11", "node_port": 30_080, "port": 80, "protocol": "tcp", "new_field": [1]}],
            "new_field": [1]}],
        "zone": null, "new_field": [1]});
    with(instance, json!({"saved_at": AT}))
}

/// The disk `data` of `web.0`.
pub(crate) fn disk() -> Value {
    json!({"id": OTHER_ID, "name": "data", "project": "default", "state": "attached", "detail": null, "created_at": AT,
        "updated_at": AT, "etag": "1", "instance": INSTANCE_ID, "instance_name": "web.0", "detached_from": null,
        "size_bytes": 10_u64 << 30, "version": VERSION_ID, "unsaved_bytes": 4096, "saved_at": null, "new_field": [1]})
}

pub(crate) fn snapshot(name: &str) -> Value {
    json!({"id": SNAPSHOT_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "deployment": DEPLOYMENT_ID, "deployment_name": "web",
        "consistency": "crash", "max_pause_ms": 500, "cut_at": AT, "durable_at": AT, "members": 2, "skipped": 0,
        "dirty_bytes": 8192, "stored_bytes": 4096, "pause_max_ms": 1.5, "new_field": [1]})
}

pub(crate) fn member(number: u64) -> Value {
    json!({"instance": INSTANCE_ID, "instance_name": format!("web.{number}"), "disk": OTHER_ID, "disk_name": "root",
        "version": VERSION_ID, "pause_ms": 1.5, "dirty_bytes": 4096, "stored_bytes": 0, "new_field": [1]})
}

pub(crate) fn node(name: &str) -> Value {
    json!({"id": OTHER_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "schedulable": true, "zone": "z1", "address": "10.0.0.1:7000",
        "tunnel": "10.0.0.1:7000",
        "conditions": [{"kind": "no_kvm", "detail": "there is no /dev/kvm"}],
        "capacity": {"cpus": 8, "cpus_used": 2, "memory_bytes": 16_u64 << 30, "memory_used_bytes": 1_u64 << 30},
        "pool": {"limit_bytes": 1 << 30, "used_bytes": 1 << 20, "objects": 4, "free_bytes": 1 << 30, "takes_bytes": 1_u64 << 29, "cache_bytes": 0,
            "lost_objects": 3, "lost_bytes": 96},
        "repair": null, "repair_ends_at": null, "drain": null, "scrub": null, "repository": null,
        "runtimes": ["libvirt", "none"], "hypervisor": "qemu", "instances": 2, "agent_version": "0.1.0",
        "last_seen_at": AT, "new_field": [1]})
}

pub(crate) fn network(name: &str) -> Value {
    json!({"id": NETWORK_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "mode": "nat", "bridge": null, "subnet_v4": "10.20.0.0/24",
        "gateway": "10.20.0.1", "subnet_v6": null, "gateway_v6": null, "dns": [], "mtu": 1450,
        "domain": "back.default.muster.internal", "nics": 2, "free": 251, "new_field": [1]})
}

pub(crate) fn security_group(name: &str) -> Value {
    json!({"id": OTHER_ID, "name": name, "project": "default", "labels": {}, "state": "ready", "reason": null,
        "created_at": AT, "updated_at": AT, "etag": "1", "new_field": [1], "rules": [
            {"direction": "in", "protocol": "tcp", "ports": "22", "from": null, "to": null, "group_name": null},
            {"direction": "in", "protocol": "any", "ports": null, "from": OTHER_ID, "to": null, "group_name": name,
                "new_field": [1]},
            {"direction": "out", "protocol": "any", "ports": null, "from": null, "to": null, "group_name": null}]})
}

/// `deployment.create` of `web`, with `done` of two instances ready.
pub(crate) fn pool() -> Value {
    json!({"id": "default", "name": "default", "min_copies": 2, "nodes": 3,
        "usage": {"limit_bytes": 3_u64 << 40, "used_bytes": 5 << 30, "objects": 412, "free_bytes": 2_u64 << 40, "takes_bytes": 1_u64 << 40,
            "cache_bytes": 0, "lost_objects": 0, "lost_bytes": 0},
        "sweep": {"state": "held", "reason": "node 'n3' did not tell yet what it holds", "since": AT, "round": 9, "begun_at": AT,
            "needed_objects": 7, "nodes_done": 1, "awaited": [{"id": OTHER_ID, "name": "n2", "new_field": [1]}],
            "dropped_objects": 12, "dropped_bytes": 3 << 20, "reclaimed_bytes": 2 << 20, "new_field": [1]},
        "repair": {"nodes_done": 2, "unchecked_objects": 0, "wanted": {"objects": 8, "bytes": 9 << 20},
            "present": {"objects": 5, "bytes": 6 << 20}, "missing": {"objects": 3, "bytes": 3 << 20},
            "surplus": {"objects": 0, "bytes": 0}, "copied": {"objects": 0, "bytes": 0},
            "handed_over": {"objects": 0, "bytes": 0}, "bytes_per_s": 1 << 20, "ends_at": null, "new_field": [1]},
        "lost": [], "membership_epoch": 7, "oldest_open_epoch": 7, "repository": null, "new_field": [1]})
}

pub(crate) fn operation(state: &str, done: u64) -> Value {
    json!({"id": OPERATION_ID, "project": "default", "kind": "deployment.create",
        "target": {"kind": "deployment", "id": DEPLOYMENT_ID, "name": "web"}, "state": state, "phase": "starting",
        "progress": {"done": done, "total": 2, "failed": 0, "unit": "instances"},
        "waiting_on": [{"what": "web.1: starting", "since": AT, "deadline": AT}], "deadline": AT, "error": null,
        "result": null, "requested_by": "me", "request_id": OTHER_ID, "created_at": AT, "updated_at": AT,
        "started_at": AT, "finished_at": null, "new_field": [1]})
}

/// Why an operation failed, as it stands in the operation.
pub(crate) fn error(status: u16, code: &str, detail: &str) -> Value {
    json!({"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail})
}

pub(crate) fn event(id: &str) -> Value {
    json!({"id": id, "time": AT, "kind": "instance.state", "project": "default",
        "target": {"kind": "instance", "id": INSTANCE_ID, "name": "web.0"}, "actor": "muster",
        "data": {"state": "running"}, "new_field": [1]})
}

/// A token without its secret.
pub(crate) fn token(name: &str) -> Value {
    json!({"id": OTHER_ID, "name": name, "role": "admin", "project": null, "created_at": AT, "expires_at": AT,
        "uses_left": null, "new_field": [1]})
}

pub(crate) fn session(token_name: &str) -> Value {
    json!({"id": OTHER_ID, "token": OTHER_ID, "token_name": token_name, "role": "admin", "project": null,
        "created_at": AT, "expires_at": AT, "last_used_at": null, "address": null, "agent": null, "new_field": [1]})
}

pub(crate) fn me(name: &str) -> Value {
    json!({"name": name, "role": "admin", "project": null, "expires_at": AT, "session": null, "cluster": OTHER_ID, "version": "0.1.0",
        "new_field": [1]})
}

pub(crate) fn summary() -> Value {
    json!({"problems": [{"kind": "node_silent", "count": 1, "detail": "n2"}], "deployments": {"ready": 1},
        "instances": {"running": 2}, "images": {}, "snapshots": {}, "nodes": {"ready": 1}, "operations": {},
        "operations_overdue": 0, "unexplained_bytes": null, "pool": null, "capacity": null, "operations_running": [], "as_of": "7", "new_field": [1]})
}

pub(crate) fn dry_run() -> Value {
    json!({"placed": 4, "unplaced": 0, "nodes": [], "reasons": [], "new_field": [1]})
}
