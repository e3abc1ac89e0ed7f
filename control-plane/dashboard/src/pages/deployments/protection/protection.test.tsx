import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Deployment } from "../../../api/deployments.ts";
import { fakeApi, problem, show } from "../../../testing/pages.tsx";
import { ProtectionPanel } from "./ProtectionPanel.tsx";

const web = { id: "d-1", name: "web", project: "shop" } as unknown as Deployment;
const protect = { every: "15m", keep: { last: 1, hourly: 24, daily: 0, weekly: 0 } };
const protection = {
  last_saved_at: "2026-11-30T09:00:00Z",
  last_snapshot: "s-1",
  last_snapshot_name: "web-20261130-0900z",
  next_at: "2026-11-30T09:15:00Z",
  under_way: null,
  trouble: "web.3 is left out: its node is silent",
};
const path = "PATCH /v1/deployments/d-1";

afterEach(() => vi.unstubAllGlobals());

test("a deployment is protected, and a time that is too short is told at its field", async () => {
  const errors = [{ pointer: "/protect/every", code: "out_of_range", detail: "5m to 7d" }];
  const refused = problem(422, { code: "invalid", detail: "no", errors });
  const calls = fakeApi({
    [path]: ({ body }: { body: { protect: { every: string } } }) => (body.protect.every === "1m" ? refused : web),
  });
  const { user } = show(<ProtectionPanel deployment={web} />);
  await user.click(await screen.findByRole("button", { name: "Protect" }));
  const every = await screen.findByRole("textbox", { name: "Save the members every" });
  await user.type(every, "1m");
  await user.type(screen.getByRole("textbox", { name: "One of each of so many days" }), "7");
  const send = screen.getAllByRole("button", { name: "Protect" }).at(-1) as HTMLElement;
  await user.click(send);
  expect(await screen.findByText("5m to 7d")).toBeTruthy();
  await user.clear(every);
  await user.type(every, "1h");
  await user.click(send);
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(calls.at(-1)?.body).toEqual({ protect: { every: "1h", keep: { daily: 7 } } });
});

test("a protection says when it saved, what is next and what is left out, and is changed in parts", async () => {
  const calls = fakeApi({ [path]: web });
  const { user } = show(<ProtectionPanel deployment={{ ...web, protect, protection }} />);
  expect(await screen.findByText("web.3 is left out: its node is silent")).toBeTruthy();
  expect(screen.getByRole("link", { name: "web-20261130-0900z" })).toBeTruthy();
  expect(screen.getByText("the newest, one of each of 24 hours")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Change" }));
  await user.clear(await screen.findByRole("textbox", { name: "One of each of so many hours" }));
  await user.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => expect(calls.map(({ body }) => body)).toEqual([{ protect: { keep: { hourly: null } } }]));
});

test("a protection is ended after a question", async () => {
  const calls = fakeApi({ [path]: web });
  const { user } = show(<ProtectionPanel deployment={{ ...web, protect, protection: null }} />);
  await user.click(await screen.findByRole("button", { name: "End" }));
  await user.click(await screen.findByRole("button", { name: "End it" }));
  await waitFor(() => expect(calls.map(({ body }) => body)).toEqual([{ protect: null }]));
});
