import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Pool } from "../../api/pools.ts";
import { fakeApi, list, problem, show } from "../../testing/pages.tsx";
import { restoredReason, wellPool } from "./fixtures.ts";
import PoolDetail, { PoolPage } from "./PoolDetail.tsx";
import { PoolRepairPanel } from "./PoolRepairPanel.tsx";
import { SweepNow } from "./SweepNow.tsx";

const operation = { id: "o-1", project: "default", kind: "pool.sweep", state: "running", progress: { done: 0 } };
const me = (role: string) => ({ "GET /v1/me": { name: "alice", role, project: null } });
const swept = "POST /v1/pools/default/sweep";

afterEach(() => vi.unstubAllGlobals());

test("the page tells what the pool holds, what the sweep gave back, and how far the repair is", async () => {
  const pool: Pool = {
    ...wellPool,
    sweep: { ...wellPool.sweep, state: "sweeping", nodes_done: 2, awaited: [{ id: "n-3", name: "n3" }] },
    repair: { ...wellPool.repair, nodes_done: 1, missing: { objects: 40, bytes: 1024 ** 3 }, bytes_per_s: 1024 ** 2 },
  };
  const node = { id: "n-1", name: "n1", state: "silent", out: true, reason: null, schedulable: true, conditions: [] };
  fakeApi({ "GET /v1/nodes": list({ ...node, pool: wellPool.usage, repair: null }), ...me("admin") });
  show(<PoolPage pool={pool} />);
  expect(await screen.findByRole("meter", { name: "Copies of objects" })).toBeTruthy();
  expect(screen.getByText("sweeping")).toBeTruthy();
  expect(screen.getByRole("link", { name: "n3" }).getAttribute("href")).toBe("/ui/nodes/n-3");
  expect(screen.getByText("28 MiB")).toBeTruthy();
  const bar = screen.getByRole("progressbar", { name: "1 of 3 nodes have nothing left to send" });
  expect(bar.getAttribute("aria-valuenow")).toBe("1");
  expect(screen.getByText("about 17 min 4 s")).toBeTruthy();
  expect(screen.getByText("40 copies of objects are missing")).toBeTruthy();
  expect(await screen.findByText("out")).toBeTruthy();
});

test("a tenant is shown nothing of the pool, and asks nothing about it", async () => {
  const calls = fakeApi(me("tenant"));
  show(<PoolDetail />);
  expect(await screen.findByText("The pool is for operators")).toBeTruthy();
  expect(calls.map(({ path }) => path)).toEqual(["/v1/me"]);
});

test("the sweep begins at a click, without a question", async () => {
  const calls = fakeApi({ [swept]: operation });
  const { user } = show(<SweepNow sweep={wellPool.sweep} />);
  await user.click(await screen.findByRole("button", { name: "Sweep now" }));
  await waitFor(() => expect(calls.map(({ body }) => body)).toEqual([{}]));
  expect(screen.queryByRole("dialog")).toBeNull();
});

test("after a restore the sweep needs a word, which is typed, and a refusal stays in the dialog", async () => {
  const detail = "node 'n3' did not tell yet what it holds";
  const calls = fakeApi({ [swept]: problem(503, { code: "unavailable", detail }) });
  const { user } = show(<SweepNow sweep={{ ...wellPool.sweep, state: "held", reason: restoredReason }} />);
  await user.click(await screen.findByRole("button", { name: "Sweep now" }));
  const allow = await screen.findByRole("button", { name: "Allow it and sweep" });
  expect(calls).toEqual([]);
  expect(allow).toHaveProperty("disabled", true);
  await user.type(screen.getByRole("textbox", { name: "Type sweep to confirm" }), "sweep");
  await user.click(allow);
  expect(await screen.findByText(detail, {}, { timeout: 10_000 })).toBeTruthy();
  expect(calls[0]?.body).toEqual({ after_restore: true });
}, 20_000);

test("a controller that was restored since the page was read asks for the word too", async () => {
  const refused = problem(409, { code: "wrong_state", state: "restored", detail: "the pool is restored" });
  const calls = fakeApi({ [swept]: ({ body }: { body: object }) => ("after_restore" in body ? operation : refused) });
  const { user } = show(<SweepNow sweep={wellPool.sweep} />);
  await user.click(await screen.findByRole("button", { name: "Sweep now" }));
  await user.type(await screen.findByRole("textbox", { name: "Type sweep to confirm" }), "sweep");
  await user.click(screen.getByRole("button", { name: "Allow it and sweep" }));
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(calls.map(({ body }) => body)).toEqual([{}, { after_restore: true }]);
});

test("the number of copies is changed after a look at what it means", async () => {
  const more = { ...wellPool, min_copies: 4 };
  const calls = fakeApi({ "PATCH /v1/pools/default": more, "GET /v1/nodes": list(), ...me("admin") });
  const { user } = show(<PoolPage pool={wellPool} />);
  await user.click(await screen.findByRole("button", { name: "Change the number of copies" }));
  const field = await screen.findByRole("textbox", { name: "Copies of each object" });
  await user.clear(field);
  await user.type(field, "1");
  expect(screen.getByText(/Fewer nodes may then fail/)).toBeTruthy();
  await user.clear(field);
  await user.type(field, "4");
  expect(screen.getByText(/Some are only made when more nodes join/)).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Change" }));
  await waitFor(() => expect(calls.find(({ method }) => method === "PATCH")?.body).toEqual({ min_copies: 4 }));
});

test("what newer controllers tell of the repair is shown, and nothing is made up where they do not", async () => {
  fakeApi({ "GET /v1/nodes": list(), ...me("admin") });
  const { present, wanted } = { present: { objects: 24_500, bytes: 1 }, wanted: { objects: 24_810, bytes: 2 } };
  show(
    <>
      <PoolRepairPanel pool={wellPool} />
      <PoolRepairPanel
        pool={{
          ...wellPool,
          repair: { ...wellPool.repair, present, wanted },
          oldest_open_epoch: 3,
          membership_epoch: 4,
        }}
      />
    </>,
  );
  expect(await screen.findAllByText("Copies where they belong")).toHaveLength(1);
  expect(screen.getByText("24,500 of 24,810")).toBeTruthy();
  expect(screen.getByText("3 to 4: objects are being handed over")).toBeTruthy();
});

test("versions that lost objects are named with what builds on them, and a repository says what does not work", async () => {
  fakeApi({ "GET /v1/nodes": list(), ...me("admin") });
  const lost = [
    {
      version: "v-1",
      name: "debian@3",
      project: "shop",
      objects: 2,
      since: "2026-11-30T00:00:00Z",
      instances: ["web.0"],
      deployments: ["web"],
    },
  ];
  const amount = { objects: 0, bytes: 0 };
  const repository = {
    state: "failing" as const,
    url: "s3://muster/cluster-1",
    write: "behind" as const,
    evict: true,
    trouble: ["n1: the repository refuses the keys"],
    behind: { objects: 12, bytes: 3 * 1024 ** 2 },
    oldest_behind_s: 90,
    uploaded: amount,
    fetched: amount,
    evicted: { objects: 7, bytes: 2 * 1024 ** 2 },
    missing_objects: 0,
  };
  show(<PoolPage pool={{ ...wellPool, lost, repository } as Pool} />);
  expect((await screen.findByRole("link", { name: "debian@3" })).getAttribute("href")).toContain("/versions/v-1");
  expect(screen.getByText("web, web.0")).toBeTruthy();
  expect(screen.getByText("failing")).toBeTruthy();
  expect(screen.getByText("n1: the repository refuses the keys")).toBeTruthy();
  expect(screen.getByText("12 objects, 3 MiB")).toBeTruthy();
  expect(screen.getByText("1 min 30 s")).toBeTruthy();
  expect(screen.getByText("7 copies, 2 MiB")).toBeTruthy();
  expect(screen.getByText(/nodes that fill up give up copies of what it has/)).toBeTruthy();
});
