import { expect, test } from "vitest";
import type { Deployment } from "../../../api/deployments.ts";
import { searchFrom, sizesOf } from "./again.ts";
import { emptyForm, meantBy } from "./form.ts";

test("another deployment like one that is there is asked for with the same settings", () => {
  const web = {
    name: "web",
    project: "blue",
    source: { image: "id-of-demo", version: 1 },
    source_name: "demo",
    count: 12,
    min_count: 12,
    cpus: 1,
    memory_bytes: 1024 ** 3,
    runtime: "libvirt",
    ready_when: { probe: "console", marker: "up", timeout_s: 300 },
    disks: [{ name: "data", size_bytes: 1024 ** 3, source: null, source_name: null }],
    firmware: "uefi",
    tpm: true,
    on_ready_timeout: "keep",
    on_host_start: "stay",
    placement: { policy: "spread" },
    nics: [
      { network_name: "default", security_group_names: ["default", "ssh"], ports: [{ port: 22, protocol: "tcp" }] },
    ],
    labels: { tier: "web" },
    protect: { every: "1h", keep: { last: 1, hourly: 0, daily: 7, weekly: 0 } },
  } as unknown as Deployment;
  const search = searchFrom(web);
  expect(search).toEqual({
    in: "blue",
    image: "demo",
    number: "1",
    count: "12",
    memory: "1GiB",
    further: ["data;1GiB"],
    firmware: "uefi",
    tpm: "yes",
    probe: "console",
    marker: "up",
    back: "stay",
    cards: "chosen",
    card: ["default;;default,ssh;22"],
    label: ["tier=web"],
    every: "1h",
    daily: "7",
  });
  expect(meantBy({ ...emptyForm, ...search }).request).toEqual({
    source: { image: "demo", version: 1 },
    count: 12,
    memory_bytes: 1024 ** 3,
    disks: [{ name: "data", size_bytes: 1024 ** 3 }],
    firmware: "uefi",
    tpm: true,
    on_host_start: "stay",
    ready: { probe: "console", marker: "up" },
    nics: [{ network: "default", security_groups: ["default", "ssh"], ports: [{ port: 22 }] }],
    protect: { every: "1h", keep: { daily: 7 } },
    labels: { tier: "web" },
  });
});

test("another fork says no to a TPM that its source may have, and another set of disk files says nothing of machines", () => {
  const fork = { source: { snapshot: "s" }, disks: [], nics: [], labels: {}, ready_when: {}, placement: {}, cpus: 1 };
  const like = (runtime: string) =>
    searchFrom({ ...fork, memory_bytes: 1, firmware: "bios", tpm: false, runtime } as unknown as Deployment);
  expect(like("libvirt")).toMatchObject({ tpm: "no", firmware: "bios" });
  expect(like("none")).not.toHaveProperty("firmware");
  expect(like("none")).not.toHaveProperty("tpm");
});

test("a fork is asked for with the processors and memory of the deployment whose disks it gets", () => {
  const small = { runtime: "libvirt", cpus: 2, memory_bytes: 128 * 1024 ** 2 } as Deployment;
  const { request } = meantBy({ ...emptyForm, snapshot: "first", ...sizesOf(small) });
  expect(request).toEqual({ source: { snapshot: "first" }, cpus: 2, memory_bytes: 128 * 1024 ** 2 });
});

test("a fork has the usual sizes if its deployment is gone or had no machines", () => {
  expect(sizesOf(undefined)).toEqual({});
  expect(sizesOf({ runtime: "none", cpus: 0, memory_bytes: 0 } as Deployment)).toEqual({});
});
