import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Node } from "../../api/nodes.ts";
import { fakeApi, show } from "../../testing/pages.tsx";
import { DrainPanel } from "./DrainPanel.tsx";
import { NodeActions } from "./NodeActions.tsx";
import { ScrubPanel } from "./ScrubPanel.tsx";

const n1 = {
  id: "n-1",
  name: "n1",
  state: "ready",
  schedulable: true,
  out: false,
  conditions: [],
  instances: 0,
  pool: { objects: 1200, used_bytes: 3 * 1024 ** 3 },
} as unknown as Node;
const operation = (kind: string) => ({ id: "o-1", project: "default", kind, state: "running", progress: { done: 0 } });
const drain = {
  state: "draining" as const,
  since: "2026-11-30T00:00:00Z",
  left: { objects: 700, bytes: 1024 ** 3 },
  bytes_per_s: 1024 ** 2,
  ends_at: null,
};

afterEach(() => vi.unstubAllGlobals());

test("a node is drained after a question that says what stays", async () => {
  const calls = fakeApi({ "POST /v1/nodes/n-1/drain": operation("node.drain") });
  const { user } = show(<NodeActions node={{ ...n1, instances: 2 }} />);
  await user.click(await screen.findByRole("button", { name: "More actions" }));
  await user.click(await screen.findByRole("menuitem", { name: "Drain" }));
  expect(await screen.findByText(/1,200 objects, 3 GiB,/)).toBeTruthy();
  expect(screen.getByText(/Its 2 instances stay and go on/)).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Drain" }));
  await waitFor(() => expect(calls.map(({ path }) => path)).toEqual(["/v1/nodes/n-1/drain"]));
});

test("the drain of a node can be ended, and is not begun twice", async () => {
  const calls = fakeApi({ "POST /v1/nodes/n-1/uncordon": n1 });
  const { user } = show(<NodeActions node={{ ...n1, schedulable: false, drain }} />);
  await user.click(await screen.findByRole("button", { name: "End the drain" }));
  await waitFor(() => expect(calls.map(({ path }) => path)).toEqual(["/v1/nodes/n-1/uncordon"]));
  await user.click(screen.getByRole("button", { name: "More actions" }));
  expect(await screen.findByRole("menuitem", { name: "Drain" })).toHaveProperty("disabled", true);
});

test("the removal of a node with objects is an operation, of one without it is done at once", async () => {
  let answer: () => Response = () => Response.json(operation("node.remove"), { status: 202 });
  fakeApi({ "DELETE /v1/nodes/n-1": () => answer() });
  const { user, router } = show(<NodeActions node={n1} />, "/nodes/n-1");
  const remove = async () => {
    await user.click(await screen.findByRole("button", { name: "More actions" }));
    await user.click(await screen.findByRole("menuitem", { name: "Remove" }));
    expect(await screen.findByText(/Other nodes get what it has of the pool first/)).toBeTruthy();
    await user.click(screen.getByRole("button", { name: "Remove" }));
    await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  };
  await remove();
  expect(router.state.location.pathname).toBe("/nodes/n-1");
  answer = () => new Response(null, { status: 204 });
  await remove();
  await waitFor(() => expect(router.state.location.pathname).toBe("/nodes"));
});

test("a node with instances cannot be removed, and says why", async () => {
  fakeApi({});
  const { user } = show(<NodeActions node={{ ...n1, instances: 1 }} />);
  await user.click(await screen.findByRole("button", { name: "More actions" }));
  const item = await screen.findByRole("menuitem", { name: /^Remove/ });
  expect(item).toHaveProperty("disabled", true);
  expect(item.textContent).toContain("It still has 1 instance,");
});

test("how far a drain and a scrub are is told in words", async () => {
  const round = { began_at: drain.since, ended_at: null, objects: 10, bytes: 4096, bad: 0, unreadable: 0 };
  const last = { ...round, ended_at: drain.since, bad: 2, unreadable: 1 };
  show(
    <>
      <DrainPanel drain={drain} />
      <ScrubPanel scrub={{ now: round, done_ppm: 250_000, last, next_at: drain.since }} />
    </>,
  );
  expect(await screen.findByText("700 copies, 1 GiB")).toBeTruthy();
  expect(screen.getByText("not known yet")).toBeTruthy();
  expect(screen.getByRole("progressbar", { name: "of this round" }).getAttribute("aria-valuenow")).toBe("250000");
  expect(screen.getByText("all good")).toBeTruthy();
  expect(screen.getByText("2 bad, 1 unreadable")).toBeTruthy();
});
