import { expect, test } from "vitest";
import type { Keep } from "../../../api/deployments.ts";
import { commandFor, isUnsayable, quote } from "./cli.ts";

const lineFor = (...request: Parameters<typeof commandFor>) => commandFor(...request).join(" ");

test("a short request is a short line", () => {
  expect(lineFor({ name: "web", source: { image: "demo" }, count: 4 }, "default")).toBe(
    "muster deploy web --image demo --count 4",
  );
});

test("every part of a request has its flag", () => {
  const line = lineFor(
    {
      name: "web",
      source: { image: "demo", version: 2 },
      count: 40,
      min_count: 30,
      cpus: 2,
      memory_bytes: 1024 ** 3,
      disk_bytes: 20 * 1024 ** 3,
      disks: [
        { name: "data", size_bytes: 1024 ** 3 },
        { name: "seed", size_bytes: 1024 ** 3, source: { image: "set", version: 3 } },
      ],
      firmware: "uefi_secure",
      tpm: true,
      ready: { probe: "guest_agent", timeout_s: 60 },
      on_ready_timeout: "stop",
      on_host_start: "stay",
      placement: { policy: "pack", zones: ["a", "b"], nodes: ["n1"], max_per_node: 5 },
      labels: { tier: "web", note: "two words" },
      protect: { every: "15m", keep: { hourly: 24 } as Keep },
      deadline_s: 600,
    },
    "blue",
  );
  expect(line).toBe(
    "muster --project blue deploy web --image demo@2 --count 40 --min-count 30 --cpus 2 --memory 1GiB " +
      "--disk-size 20GiB --disk data=1GiB --disk seed=1GiB,source=set@3 --firmware uefi_secure --tpm " +
      "--ready guest-agent --ready-timeout 60s --on-ready-timeout stop --on-host-start stay --pack --zone a --zone b " +
      "--node n1 --max-per-node 5 --protect-every 15m --keep-hourly 24 --deadline 600s --label 'note=two words' --label tier=web",
  );
});

test("forks, versions and disk files have their lines", () => {
  expect(lineFor({ name: "f", source: { snapshot: "s", allow_missing: true } }, undefined)).toBe(
    "muster deploy f --snapshot s --allow-missing",
  );
  expect(lineFor({ name: "f", source: { snapshot: "s" }, tpm: false }, undefined)).toBe(
    "muster deploy f --snapshot s --tpm=no",
  );
  expect(lineFor({ source: { version: "01a2" }, count: 1, runtime: "none" }, undefined)).toBe(
    "muster deploy NAME --version 01a2 --count 1 --runtime none",
  );
});

test("keys are words of the line, and user data is a file", () => {
  expect(
    lineFor(
      { name: "web", source: { image: "demo" }, count: 1, ssh_keys: ["ssh-ed25519 AAAA me"], user_data: "#!/bin/sh" },
      undefined,
    ),
  ).toBe("muster deploy web --image demo --count 1 --ssh-key 'ssh-ed25519 AAAA me' --user-data user-data.txt");
  expect(lineFor({ name: "f", source: { snapshot: "s" }, ssh_keys: [], user_data: "" }, undefined)).toBe(
    "muster deploy f --snapshot s --no-ssh-keys --user-data /dev/null",
  );
});

test("network cards have their flags", () => {
  const source = { image: "demo" };
  expect(lineFor({ name: "w", source, count: 1, nics: [] }, undefined)).toBe(
    "muster deploy w --image demo --count 1 --no-network",
  );
  const ports = [{ port: 22 }, { port: 53, node_port: 30053, protocol: "udp" as const }];
  const nics = [{ network: "back", address: "10.20.0.5", security_groups: ["default", "ssh"], ports }];
  expect(lineFor({ name: "w", source, count: 1, nics }, undefined)).toBe(
    "muster deploy w --image demo --count 1 --network back:10.20.0.5 --security-group default --security-group ssh " +
      "--publish 22 --publish 30053:53/udp",
  );
});

test("what only JSON can say is told", () => {
  const asks = (...nics: NonNullable<Parameters<typeof isUnsayable>[0]["nics"]>) =>
    isUnsayable({ source: { image: "demo" }, nics });
  expect(asks({ network: "a", ports: [{ port: 22 }] }, { network: "b" })).toBe(false);
  expect(asks({ network: "a" }, { network: "b", ports: [{ port: 22 }] })).toBe(true);
  expect(asks({ network: "a" }, { network: "b", security_groups: ["web"] })).toBe(true);
});

test("a word that a shell would read differently is quoted", () => {
  expect([quote("a-b=c"), quote("it's"), quote("$x"), quote("")]).toEqual(["a-b=c", "'it'\\''s'", "'$x'", "''"]);
});
