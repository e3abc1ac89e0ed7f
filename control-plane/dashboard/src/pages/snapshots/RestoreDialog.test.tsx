import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Snapshot } from "../../api/snapshots.ts";
import { fakeApi, problem, show } from "../../testing/pages.tsx";
import { RestoreDialog } from "./RestoreDialog.tsx";

const snapshot = { id: "s-1", name: "friday", project: "shop" } as unknown as Snapshot;
const path = "POST /v1/snapshots/s-1/restore";
const operation = { id: "o-1", project: "shop", kind: "snapshot.restore", state: "running", progress: { done: 0 } };
const closed = vi.fn();

afterEach(() => {
  vi.unstubAllGlobals();
  closed.mockReset();
});

const dialog = () => show(<RestoreDialog snapshot={snapshot} onClose={closed} />);

test("a restore keeps the present unless somebody gives it up, and the command line says the same", async () => {
  const calls = fakeApi({ [path]: operation });
  const { user } = dialog();
  expect(await screen.findByText("muster snapshot restore friday")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Restore" }));
  await waitFor(() => expect(closed).toHaveBeenCalled());
  expect(calls[0]?.body).toEqual({});
  expect(calls[0]?.query).toBe("project=shop");
});

test("the present is given up and the power cut only by who says so", async () => {
  const calls = fakeApi({ [path]: operation });
  const { user } = dialog();
  await user.click(await screen.findByRole("radio", { name: /Give it up/ }));
  await user.click(screen.getByRole("checkbox", { name: /Cut the power/ }));
  expect(screen.getByText("muster snapshot restore friday --discard-current --force")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Restore and give up the present" }));
  await waitFor(() => expect(closed).toHaveBeenCalled());
  expect(calls[0]?.body).toEqual({ discard_current: true, force: true });
});

test("what is not there any more is named, and the others are restored only when that is wanted", async () => {
  const missing = [{ instance: "web.3", disk: "root", why: "the instance was deleted" }];
  const refused = problem(409, { code: "wrong_state", detail: "1 of 4 disks is missing", missing });
  const calls = fakeApi({ [path]: ({ body }: { body: object }) => ("allow_missing" in body ? operation : refused) });
  const { user } = dialog();
  await user.click(await screen.findByRole("button", { name: "Restore" }));
  expect(await screen.findByText("web.3/root: the instance was deleted")).toBeTruthy();
  expect(screen.getByRole("button", { name: "Restore" })).toHaveProperty("disabled", true);
  await user.click(screen.getByRole("checkbox", { name: "Restore the others" }));
  await user.click(screen.getByRole("button", { name: "Restore" }));
  await waitFor(() => expect(closed).toHaveBeenCalled());
  expect(calls.map(({ body }) => body)).toEqual([{}, { allow_missing: true }]);
});

test("a refusal for another reason is shown as it is", async () => {
  fakeApi({ [path]: problem(409, { code: "busy", detail: "web.0 is being started" }) });
  const { user } = dialog();
  await user.click(await screen.findByRole("button", { name: "Restore" }));
  expect(await screen.findByText("web.0 is being started")).toBeTruthy();
  expect(closed).not.toHaveBeenCalled();
});
