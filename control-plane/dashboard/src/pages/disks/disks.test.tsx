import { screen, waitFor, within } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Disk } from "../../api/disks.ts";
import type { Instance } from "../../api/instances.ts";
import { fakeApi, list, problem, show } from "../../testing/pages.tsx";
import { DisksPanel } from "../instances/DisksPanel.tsx";
import { DiskActions } from "./DiskActions.tsx";
import { DiskPage } from "./DiskDetail.tsx";
import DiskList from "./DiskList.tsx";

const gib = 1024 ** 3;
const data: Disk = {
  id: "k-1",
  name: "data",
  project: "shop",
  state: "attached",
  detail: null,
  created_at: "2026-11-30T00:00:00Z",
  updated_at: "2026-11-30T00:00:00Z",
  etag: '"1"',
  instance: "i-1",
  instance_name: "web.0",
  detached_from: null,
  size_bytes: 10 * gib,
  version: "v-1",
  unsaved_bytes: 0,
  saved_at: null,
};
const detached: Disk = {
  ...data,
  id: "k-2",
  state: "detached",
  instance: null,
  instance_name: null,
  detached_from: "web.3",
};
const waits = "the guest has not let go of it";
const detaching: Disk = { ...data, state: "detaching", detail: waits };
const root = { ...data, id: "k-0", name: "root" };
const instance = (state = "running") =>
  ({ id: "i-1", name: "web.0", project: "shop", state, disks: [root, data] }) as unknown as Instance;

afterEach(() => vi.unstubAllGlobals());

test("a disk grows: what is smaller is not sent, and a refusal stands at the size", async () => {
  const errors = [{ pointer: "/size_bytes", code: "out_of_range", detail: "a multiple of 4096, got 21474836481" }];
  const calls = fakeApi({ "PATCH /v1/disks/k-1": problem(422, { code: "invalid", detail: "no", errors }) });
  const { user } = show(<DiskActions disk={data} />);
  await user.click(await screen.findByRole("button", { name: "Grow: disk data" }));
  const size = await screen.findByRole("textbox", { name: "New size" });
  await user.clear(size);
  await user.type(size, "5 GiB");
  expect(screen.getByText("It has 10 GiB now, and no disk can shrink.")).toBeTruthy();
  expect(screen.getByRole("button", { name: "Grow" })).toHaveProperty("disabled", true);
  await user.clear(size);
  await user.type(size, "20 GiB");
  expect(screen.getByText("muster disk grow web.0/data 20GiB")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Grow" }));
  expect(await screen.findByText(/a multiple of 4096/)).toBeTruthy();
  expect(calls[0]?.body).toEqual({ size_bytes: 20 * gib });
  expect(calls[0]?.query).toBe("project=shop");
});

test("a disk is detached after a question, and one that is being detached can be kept", async () => {
  const calls = fakeApi({ "POST /v1/disks/k-1/detach": detaching, "POST /v1/instances/i-1/disks": data });
  const { user } = show(
    <>
      <DiskActions disk={data} />
      <DiskActions disk={detaching} />
    </>,
  );
  await user.click(await screen.findByRole("button", { name: "Detach: disk data" }));
  await user.click(await screen.findByRole("button", { name: "Detach" }));
  await waitFor(() => expect(calls.map(({ path }) => path)).toEqual(["/v1/disks/k-1/detach"]));
  await user.click(screen.getByRole("button", { name: "Keep it attached: disk data" }));
  await waitFor(() => expect(calls.length).toBe(2));
  expect(calls[1]?.path).toBe("/v1/instances/i-1/disks");
  expect(calls[1]?.body).toEqual({ disk: "k-1" });
});

test("a detached disk goes to an instance that takes one", async () => {
  const calls = fakeApi({
    "GET /v1/instances": list(instance(), { ...instance("failed"), id: "i-2", name: "web.1" }),
    "POST /v1/instances/i-1/disks": data,
  });
  const { user } = show(<DiskActions disk={detached} />);
  await user.click(await screen.findByRole("button", { name: "Attach: disk data" }));
  await user.click(await screen.findByRole("combobox", { name: "Instance" }));
  await user.click(await screen.findByRole("option", { name: "web.0 (running)" }));
  expect(screen.queryByRole("option", { name: /web\.1/ })).toBeNull();
  await user.click(screen.getByRole("button", { name: "Attach" }));
  await waitFor(() => expect(calls.find(({ method }) => method === "POST")?.body).toEqual({ disk: "k-2" }));
});

test("a detached disk is deleted after a question", async () => {
  const calls = fakeApi({ "DELETE /v1/disks/k-2": () => new Response(null, { status: 204 }) });
  const { user, router } = show(<DiskActions disk={detached} />);
  await user.click(await screen.findByRole("button", { name: "Delete: disk data" }));
  await user.click(await screen.findByRole("button", { name: "Delete" }));
  await waitFor(() => expect(router.state.location.pathname).toBe("/disks"));
  expect(calls.map(({ method }) => method)).toEqual(["DELETE"]);
});

test("an instance gets a new disk, and a name that is taken is told at the name", async () => {
  const calls = fakeApi({
    "GET /v1/disks": list(root, data),
    "GET /v1/images": list(),
    "POST /v1/instances/i-1/disks": problem(409, { code: "name_taken", detail: "web.0 has a disk 'logs'" }),
  });
  const { user } = show(<DisksPanel instance={instance()} />);
  await user.click(await screen.findByRole("button", { name: "Attach a disk" }));
  const name = await screen.findByRole("textbox", { name: "Name" });
  // The instance has one called data.
  expect(name).toHaveProperty("value", "data-2");
  await user.clear(name);
  await user.type(name, "logs");
  await user.type(screen.getByRole("combobox", { name: "Starts as" }), "set@2");
  await user.click(screen.getByRole("button", { name: "Attach" }));
  expect(await screen.findByText("web.0 has a disk 'logs'")).toBeTruthy();
  expect(calls.find(({ method }) => method === "POST")?.body).toEqual({
    name: "logs",
    size_bytes: 10 * gib,
    source: { image: "set", version: 2 },
  });
});

test("an instance gets a disk that is detached, under another name", async () => {
  const calls = fakeApi({
    "GET /v1/disks": ({ query }: { query: string }) => (query.includes("detached=true") ? list(detached) : list(root)),
    "GET /v1/images": list(),
    "POST /v1/instances/i-1/disks": { ...detached, ...data, id: "k-2", name: "old" },
  });
  const { user } = show(<DisksPanel instance={instance()} />);
  await user.click(await screen.findByRole("button", { name: "Attach a disk" }));
  await user.click(await screen.findByRole("radio", { name: "A detached one" }));
  await user.click(screen.getByRole("combobox", { name: "Disk" }));
  await user.click(await screen.findByRole("option", { name: "data (10 GiB, was of web.3)" }));
  await user.type(screen.getByRole("textbox", { name: "Name within the instance" }), "old");
  await user.click(screen.getByRole("button", { name: "Attach" }));
  const sent = () => calls.find(({ method }) => method === "POST")?.body;
  await waitFor(() => expect(sent()).toEqual({ disk: "k-2", name: "old" }));
});

test("the page of an instance says what a disk waits for, and a boot disk can only grow", async () => {
  fakeApi({ "GET /v1/disks": list(root, detaching) });
  show(<DisksPanel instance={instance()} />);
  expect(await screen.findByText(`Waits for: ${waits}`)).toBeTruthy();
  expect(screen.getByRole("button", { name: "Grow: disk root" })).toBeTruthy();
  expect(screen.queryByRole("button", { name: "Detach: disk root" })).toBeNull();
});

test("an instance that is being deleted takes no disk", async () => {
  fakeApi({ "GET /v1/disks": list() });
  show(<DisksPanel instance={instance("deleting")} />);
  await screen.findByText("root");
  expect(screen.queryByRole("button", { name: "Attach a disk" })).toBeNull();
});

test("the page of a disk says whose it is, what its state means and what it waits for", async () => {
  show(<DiskPage disk={detaching} />);
  expect(await screen.findByText(`What it waits for: ${waits}`)).toBeTruthy();
  expect(screen.getByRole("link", { name: "web.0" })).toBeTruthy();
  expect(screen.getByText("muster disk show web.0/data")).toBeTruthy();
});

test("the list has the disks of instances, and those that were detached", async () => {
  fakeApi({ "GET /v1/disks": list(data, detached) });
  show(<DiskList />);
  expect(await screen.findByText("was of web.3")).toBeTruthy();
  const table = screen.getByRole("grid", { name: "disks" });
  expect(within(table).getByText("attached")).toBeTruthy();
  expect(within(table).getByText("detached")).toBeTruthy();
});
