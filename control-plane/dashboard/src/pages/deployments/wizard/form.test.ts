import { expect, test } from "vitest";
import { emptyForm, type Form, fieldOf, meantBy, sortErrors } from "./form.ts";

const form = (changes: Partial<Form>): Form => ({ ...emptyForm, ...changes });

test("an empty form means nothing that could be asked", () => {
  expect(meantBy(emptyForm).sourced).toBe(false);
});

test("what equals the API's default is left out of the request", () => {
  expect(meantBy(form({ image: "demo", count: "4" })).request).toEqual({ source: { image: "demo" }, count: 4 });
});

test("every field ends up in the request", () => {
  const { request, unread } = meantBy(
    form({
      image: "demo",
      number: "2",
      name: " web ",
      count: "40",
      least: "30",
      cpus: "2",
      memory: "1.5 GiB",
      disk: "20g",
      further: ["data;1 GiB", "seed;2g;set@3"],
      firmware: "uefi_secure",
      tpm: "yes",
      probe: "console",
      marker: "up",
      timeout: "60",
      late: "stop",
      back: "stay",
      policy: "pack",
      most: "5",
      deadline: "600",
      zone: ["a"],
      node: ["n1", "n2"],
      label: ["tier=web"],
      every: "15m",
      daily: "7",
    }),
  );
  expect(unread).toEqual({});
  expect(request).toEqual({
    name: "web",
    source: { image: "demo", version: 2 },
    count: 40,
    min_count: 30,
    cpus: 2,
    memory_bytes: 1.5 * 1024 ** 3,
    disk_bytes: 20 * 1024 ** 3,
    disks: [
      { name: "data", size_bytes: 1024 ** 3 },
      { name: "seed", size_bytes: 2 * 1024 ** 3, source: { image: "set", version: 3 } },
    ],
    firmware: "uefi_secure",
    tpm: true,
    ready: { probe: "console", marker: "up", timeout_s: 60 },
    on_ready_timeout: "stop",
    on_host_start: "stay",
    placement: { policy: "pack", zones: ["a"], nodes: ["n1", "n2"], max_per_node: 5 },
    labels: { tier: "web" },
    protect: { every: "15m", keep: { daily: 7 } },
    deadline_s: 600,
  });
});

test("cards are chosen, left out, or as usual, which says nothing", () => {
  const nics = (changes: Partial<Form>) => meantBy(form({ image: "demo", ...changes })).request.nics;
  expect(nics({})).toBeUndefined();
  expect(nics({ cards: "none" })).toEqual([]);
  expect(nics({ cards: "chosen", card: ["back;10.20.0.5;default;22"] })).toEqual([
    { network: "back", address: "10.20.0.5", ports: [{ port: 22 }] },
  ]);
  expect(nics({ cards: "chosen", card: ["back"], runtime: "none" })).toBeUndefined();
});

test("a fork names no count, because it has as many members as its snapshot", () => {
  expect(meantBy(form({ snapshot: "before", count: "9" })).request).toEqual({ source: { snapshot: "before" } });
});

test("disk files alone need no processors, no memory, no probe and no firmware, but may be several", () => {
  const machine = { cpus: "8", memory: "x", probe: "console", firmware: "uefi", tpm: "yes", back: "stay" };
  const { request } = meantBy(form({ image: "demo", runtime: "none", ...machine, further: ["data;1g"] }));
  const disks = [{ name: "data", size_bytes: 1024 ** 3 }];
  expect(request).toEqual({ source: { image: "demo" }, count: 1, runtime: "none", disks });
});

test("a fork can be without the TPM that its source has", () => {
  expect(meantBy(form({ snapshot: "before", tpm: "no" })).request.tpm).toBe(false);
});

test("what cannot be read is told at its field and not asked", () => {
  const { request, unread } = meantBy(form({ image: "demo", count: "four", memory: "much" }));
  expect(request).toEqual({ source: { image: "demo" } });
  expect(Object.keys(unread)).toEqual(["count", "memory"]);
});

test("an error of the API stands at the field that it is about", () => {
  expect(fieldOf("/placement/nodes/0", emptyForm)).toBe("node");
  expect(fieldOf("/labels/a~1b", emptyForm)).toBe("label");
  expect(fieldOf("/source/version", form({ image: "demo" }))).toBe("number");
  expect(fieldOf("/source/version", form({ version: "01a2" }))).toBe("version");
  expect(fieldOf("/ssh_keys/1", emptyForm)).toBe("keys");
  expect(fieldOf("/user_data", emptyForm)).toBe("data");
  expect(fieldOf("/nics/0/network", emptyForm)).toBe("cards");
  expect(fieldOf("/nics/0/network", form({ cards: "chosen" }))).toBe("card/0/network");
  expect(fieldOf("/disks/0/size_bytes", emptyForm)).toBe("disk/0/size");
  expect(fieldOf("/firmware", emptyForm)).toBe("firmware");
  expect(fieldOf("/protect/keep/daily", emptyForm)).toBe("daily");
  expect(fieldOf("/colour", emptyForm)).toBeUndefined();
  expect(
    sortErrors(
      [
        { pointer: "/cpus", detail: "1 to 1024, got 0" },
        { pointer: "/colour", detail: "not known" },
      ],
      emptyForm,
    ),
  ).toEqual({ fields: { cpus: "1 to 1024, got 0" }, rest: ["not known"] });
});
