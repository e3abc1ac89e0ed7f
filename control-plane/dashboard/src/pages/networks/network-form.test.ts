import { expect, test } from "vitest";
import type { Network } from "../../api/networks.ts";
import { commandFor, createOf, emptyNetwork, formOf, networkFieldOf, patchOf, problemsOf } from "./network-form.ts";

const back = { name: "back", mode: "nat", dns: ["192.0.2.53"], mtu: 1450 } as unknown as Network;

test("an empty form leaves everything to the controller", () => {
  expect(createOf(emptyNetwork)).toEqual({});
  expect(commandFor({}, "default")).toBe("muster network create NAME");
});

test("every field ends up in the request and on the command line", () => {
  const request = createOf({
    ...emptyNetwork,
    name: " back ",
    mode: "isolated",
    subnet: "10.20.0.0/24",
    subnetV6: "fd00:20::/64",
    gateway: "10.20.0.254",
    dns: ["192.0.2.53", "192.0.2.54"],
    mtu: "1400",
  });
  expect(request).toEqual({
    name: "back",
    mode: "isolated",
    subnet_v4: "10.20.0.0/24",
    subnet_v6: "fd00:20::/64",
    gateway: "10.20.0.254",
    dns: ["192.0.2.53", "192.0.2.54"],
    mtu: 1400,
  });
  expect(commandFor(request, "shop")).toBe(
    "muster --project shop network create back --mode isolated --subnet 10.20.0.0/24 --subnet-v6 fd00:20::/64 " +
      "--gateway 10.20.0.254 --dns 192.0.2.53 --dns 192.0.2.54 --mtu 1400",
  );
});

test("a bridge of the hosts has no addresses, also if some were typed before", () => {
  const form = { ...emptyNetwork, mode: "bridge" as const, bridge: "br0", subnet: "10.20.0.0/24", dns: ["192.0.2.53"] };
  expect(createOf(form)).toEqual({ mode: "bridge", bridge: "br0" });
});

test("a change says only what differs, and what is emptied goes back to the default", () => {
  expect(patchOf(formOf(back), back)).toEqual({});
  expect(patchOf({ ...formOf(back), name: "rear" }, back)).toEqual({ name: "rear" });
  expect(patchOf({ ...formOf(back), dns: [], mtu: "" }, back)).toEqual({ dns: null, mtu: null });
});

test("a largest packet that is no number is told before anything is asked", () => {
  expect(Object.keys(problemsOf({ ...emptyNetwork, mtu: "big" }))).toEqual(["mtu"]);
  expect(problemsOf({ ...emptyNetwork, mtu: " 1450 " })).toEqual({});
});

test("an error of the API stands at its field", () => {
  expect(["/subnet_v4", "/dns/0", "/name", "/labels/a"].map(networkFieldOf)).toEqual([
    "subnet",
    "dns",
    "name",
    undefined,
  ]);
});
