import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { setScope } from "../../api/scope.ts";
import { fakeApi, list, problem, show } from "../../testing/pages.tsx";
import NetworkList from "./NetworkList.tsx";

const operator = { name: "ops", role: "admin", project: null };
const tenant = { name: "shop-ci", role: "tenant", project: "shop" };

afterEach(() => {
  vi.unstubAllGlobals();
  setScope(undefined, undefined);
});

test("a place without networks says what they are for and how the first one is made", async () => {
  fakeApi({ "GET /v1/me": tenant, "GET /v1/networks": list() });
  show(<NetworkList />);
  expect(await screen.findByText("There are no networks yet")).toBeTruthy();
  expect(screen.getByText("muster network create back --subnet 10.20.0.0/24")).toBeTruthy();
});

test("a refusal stands at its fields, and the form keeps what was typed", async () => {
  const errors = [
    { pointer: "/subnet_v4", code: "invalid", detail: "the subnet is 10.1.1.0/24" },
    { pointer: "/dns/0", code: "invalid", detail: "no guest can ask 127.0.0.1" },
  ];
  const calls = fakeApi({
    "GET /v1/me": tenant,
    "GET /v1/networks": list(),
    "POST /v1/networks": problem(422, { code: "invalid", detail: "no", errors }),
  });
  const { user } = show(<NetworkList />);
  await user.click((await screen.findAllByRole("button", { name: "New network" }))[0] as HTMLElement);
  await user.type(await screen.findByRole("textbox", { name: "Name" }), "back");
  await user.type(screen.getByRole("textbox", { name: "IPv4 range" }), "10.1.1.1/24");
  await user.click(screen.getByRole("button", { name: "Make the network" }));
  expect(await screen.findByText("the subnet is 10.1.1.0/24")).toBeTruthy();
  expect(screen.getByText("no guest can ask 127.0.0.1")).toBeTruthy();
  expect(screen.queryByText("It is not made")).toBeNull();
  expect(calls.find(({ method }) => method === "POST")?.body).toEqual({ name: "back", subnet_v4: "10.1.1.1/24" });
  expect(screen.getByRole("textbox", { name: "IPv4 range" })).toHaveProperty("value", "10.1.1.1/24");
});

test("only operators are offered bridges of the hosts, and where they see all projects they are asked for one", async () => {
  fakeApi({ "GET /v1/me": tenant, "GET /v1/networks": list() });
  const { user } = show(<NetworkList />);
  await user.click((await screen.findAllByRole("button", { name: "New network" }))[0] as HTMLElement);
  await screen.findByRole("radio", { name: "isolated" });
  expect(screen.queryByRole("radio", { name: "bridge" })).toBeNull();
  expect(screen.queryByRole("combobox", { name: "Project" })).toBeNull();
});

test("an operator who sees all projects says which one a network is for", async () => {
  setScope("*", undefined);
  const made = { id: "n-1", name: "back", project: "shop" };
  const calls = fakeApi({
    "GET /v1/me": operator,
    "GET /v1/networks": list(),
    "GET /v1/tokens": list({ id: "t-1", project: "shop" }),
    "POST /v1/networks": made,
  });
  const { user, router } = show(<NetworkList />);
  await user.click((await screen.findAllByRole("button", { name: "New network" }))[0] as HTMLElement);
  await user.click(await screen.findByRole("combobox", { name: "Project" }));
  await user.click(await screen.findByRole("option", { name: "shop" }));
  expect(screen.getByRole("radio", { name: "bridge" })).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Make the network" }));
  await waitFor(() => expect(router.state.location.pathname).toBe("/networks/n-1"));
  expect(calls.find(({ method }) => method === "POST")?.query).toBe("project=shop");
});
