import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import type { Instance } from "../../api/instances.ts";
import { show } from "../../testing/pages.tsx";
import { GuestPanel } from "./GuestPanel.tsx";

const gib = 1024 ** 3;
const guest = {
  answers: true,
  agent_version: "7.2.13",
  os: { name: "Debian GNU/Linux 12 (bookworm)", id: "debian", version: "12", kernel: "6.1.0-31-cloud-amd64" },
  host_name: "web-0",
  interfaces: [{ name: "ens2", mac: "52:00:00:01:00:02", addresses: ["10.77.0.2", "fd00::2"] }],
  file_systems: [
    { mount: "/", kind: "ext4", size_bytes: 20 * gib, used_bytes: 19 * gib },
    { mount: "/boot/efi", kind: "vfat", size_bytes: null, used_bytes: null },
  ],
};
const instance = (part: object) => ({ state: "running", runtime: "libvirt", guest, ...part }) as unknown as Instance;

test("a guest tells its system, its addresses and how full its file systems are", async () => {
  show(<GuestPanel instance={instance({})} />);
  expect(await screen.findByText("Debian GNU/Linux 12 (bookworm)")).toBeTruthy();
  for (const text of ["6.1.0-31-cloud-amd64", "web-0", "7.2.13", "10.77.0.2", "fd00::2"]) {
    expect(screen.getByText(text)).toBeTruthy();
  }
  const full = screen.getByRole("meter", { name: "/ (ext4)" });
  expect(full.getAttribute("aria-valuetext")).toBe("95%, 19 GiB of 20 GiB");
  expect(screen.getAllByRole("meter").length).toBe(1);
  expect(screen.getByText("its size is not told")).toBeTruthy();
  expect(screen.queryByText(/told before/)).toBeNull();
});

test("what is no longer answered for is said to be old", async () => {
  show(<GuestPanel instance={instance({ guest: { ...guest, answers: false } })} />);
  expect(await screen.findByText(/does not answer now. This is what it told before/)).toBeTruthy();
});

test("what a guest told before it was stopped is said to be old too", async () => {
  show(<GuestPanel instance={instance({ state: "stopped" })} />);
  expect(await screen.findByText(/Its state is stopped now. This is what it told before/)).toBeTruthy();
});

test("a guest without an agent is told what one would bring; a disk file has no guest", async () => {
  show(
    <>
      <GuestPanel instance={instance({ guest: undefined })} />
      <GuestPanel instance={instance({ guest: undefined, runtime: "none" })} />
      <GuestPanel instance={instance({ guest: undefined, state: "stopped" })} />
    </>,
  );
  expect((await screen.findAllByText(/qemu-guest-agent/)).length).toBe(1);
});

test("names that a guest makes up break nothing", async () => {
  const twice = { name: "eth0", mac: null, addresses: ["10.0.0.1", "10.0.0.1"] };
  const odd = { ...guest, os: null, host_name: null, interfaces: [twice, twice], file_systems: [] };
  show(<GuestPanel instance={instance({ guest: odd })} />);
  expect((await screen.findAllByText("10.0.0.1")).length).toBe(4);
});
