import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { fakeApi, list, problem, show } from "../../testing/pages.tsx";
import CreateSnapshot from "./CreateSnapshot.tsx";

const web = { id: "d-1", name: "web", project: "shop" };
const operation = { id: "o-1", kind: "snapshot.create", target: { kind: "snapshot", id: "s-1", name: "s" } };
const noAgent = problem(409, {
  code: "no_guest_agent",
  detail: "the guest agent of web.1 does not answer, so file systems cannot be frozen",
  instance: "i-1",
});
const lists = { "GET /v1/deployments": list(), "GET /v1/instances": list() };
const created = vi.fn();

afterEach(() => {
  vi.unstubAllGlobals();
  created.mockReset();
});

const dialog = () => show(<CreateSnapshot opened onClose={() => {}} onCreated={created} deployment={web} />);

test("file systems at rest are asked for, and the command line says so too", async () => {
  const calls = fakeApi({ ...lists, "POST /v1/snapshots": operation });
  const { user } = dialog();
  await user.click(await screen.findByRole("radio", { name: "File systems at rest" }));
  expect(screen.getByText("muster snapshot create web --consistency filesystem")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Take the snapshot" }));
  await waitFor(() => expect(created).toHaveBeenCalled());
  expect(calls.find(({ method }) => method === "POST")?.body).toEqual({
    select: { deployment: "d-1" },
    consistency: "filesystem",
  });
});

test("a guest agent that does not answer is named, and the snapshot that needs none is one click away", async () => {
  const wanted = ({ body }: { body: { consistency: string } }) =>
    body.consistency === "filesystem" ? noAgent : operation;
  fakeApi({ ...lists, "POST /v1/snapshots": wanted });
  const { user } = dialog();
  await user.click(await screen.findByRole("radio", { name: "File systems at rest" }));
  await user.click(screen.getByRole("button", { name: "Take the snapshot" }));
  expect((await screen.findByRole("alert")).textContent).toContain("web.1 does not answer");
  expect(screen.getByRole("link", { name: "Look at the instance" }).getAttribute("href")).toContain("/instances/i-1");
  await user.click(screen.getByRole("button", { name: "Choose as after a power cut" }));
  expect(screen.queryByRole("alert")).toBeNull();
  await user.click(screen.getByRole("button", { name: "Take the snapshot" }));
  await waitFor(() => expect(created).toHaveBeenCalled());
});
