import { screen, within } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Instance } from "../../api/instances.ts";
import { fakeApi, list, show } from "../../testing/pages.tsx";
import { NetworkPanel } from "./NetworkPanel.tsx";

const port = { node_port: 30000, port: 22, protocol: "tcp", node_address: "192.0.2.7" };
const nic = {
  network: "n-1",
  network_name: "default",
  mac: "52:00:00:01:00:02",
  address_v4: "10.77.0.2",
  address_v6: "fd00::2",
  security_groups: ["g-1", "g-2"],
  security_group_names: ["default", "ssh"],
  ports: [port],
};
const instance = (nics: unknown[]) =>
  ({ id: "i-1", project: "default", deployment: "d-1", nics }) as unknown as Instance;
const rule = (ports: string) => ({ direction: "in", protocol: "tcp", ports, from: null, to: null, group_name: null });
const api = (ports: string, user: string | null) =>
  fakeApi({
    "GET /v1/deployments/d-1": { id: "d-1", source: { image: "img-1" } },
    "GET /v1/images/img-1": { id: "img-1", default_user: user },
    "GET /v1/security-groups": list(
      { id: "g-1", name: "default", project: "default", rules: [] },
      { id: "g-2", name: "ssh", project: "default", rules: [rule(ports)] },
    ),
  });

afterEach(() => vi.unstubAllGlobals());

test("a card shows where it is, and the line that signs in as the user of the image", async () => {
  api("22", "debian");
  show(<NetworkPanel instance={instance([nic])} />);
  expect(await screen.findByText("ssh -p 30000 debian@192.0.2.7")).toBeTruthy();
  for (const text of ["default", "10.77.0.2", "fd00::2", "52:00:00:01:00:02", "ssh", "192.0.2.7:30000"]) {
    expect(screen.getAllByText(text).length).toBeGreaterThan(0);
  }
  expect(screen.queryByText(/^Closed/)).toBeNull();
});

test("a published port that no group lets in is said to be closed, without a line that cannot work", async () => {
  api("80", null);
  show(<NetworkPanel instance={instance([nic])} />);
  const closed = await screen.findByText(/^Closed: no rule/);
  expect(closed.textContent).toContain("Add one to default, ssh.");
  expect(within(closed).getByRole("link", { name: "ssh" }).getAttribute("href")).toContain("/security-groups/g-2");
  expect(screen.queryByText(/^ssh -p/)).toBeNull();
});

test("an instance without a card says how it is reached", async () => {
  api("22", null);
  show(<NetworkPanel instance={instance([])} />);
  expect(await screen.findByText(/console and its disk only/)).toBeTruthy();
});
