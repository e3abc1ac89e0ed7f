import { screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Deployment } from "../../../api/deployments.ts";
import { fakeApi, show } from "../../../testing/pages.tsx";
import { SettingsTab } from "./SettingsTab.tsx";

const gib = 1024 ** 3;
const web = {
  id: "d-1",
  name: "web",
  project: "shop",
  source: { image: "img-1" },
  source_name: "debian",
  count: 2,
  min_count: 2,
  cpus: 1,
  memory_bytes: gib,
  disk_bytes: 3 * gib,
  disks: [
    { name: "data", size_bytes: 20 * gib, source: null, source_name: null },
    { name: "seed", size_bytes: gib, source: { image: "img-2", version: 3 }, source_name: "set" },
  ],
  runtime: "libvirt",
  ready_when: { probe: "running" },
  on_ready_timeout: "keep",
  on_host_start: "stay",
  placement: { policy: "spread" },
  nics: [],
  firmware: "uefi_secure",
  tpm: true,
  labels: {},
};
const settings = (part: object) => show(<SettingsTab deployment={{ ...web, ...part } as unknown as Deployment} />);
const said = (name: string) => screen.getByText(name).nextElementSibling?.textContent;

afterEach(() => vi.unstubAllGlobals());

test("the machine, the disks and what follows a restart of the host are told", async () => {
  fakeApi({});
  settings({});
  await screen.findByText("Firmware");
  expect(said("Firmware")).toBe("Secure Boot");
  expect(said("TPM")).toBe("yes");
  expect(said("After a restart of its host")).toBe("a member that ran stays off");
  expect(screen.getByText("blank")).toBeTruthy();
  expect(screen.getByRole("link", { name: "set@3" }).getAttribute("href")).toContain("/images/img-2");
});

test("disk files have no machine to tell of", async () => {
  fakeApi({});
  settings({ runtime: "none", disks: [] });
  await screen.findByText("Each member");
  for (const text of ["Firmware", "TPM", "After a restart of its host"]) expect(screen.queryByText(text)).toBeNull();
});
