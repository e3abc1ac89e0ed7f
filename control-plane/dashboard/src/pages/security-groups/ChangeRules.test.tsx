import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { type SecurityGroup, useSecurityGroup } from "../../api/security-groups.ts";
import { fakeApi, list, problem, show } from "../../testing/pages.tsx";
import { ChangeRules } from "./ChangeRules.tsx";

const rule = (ports: string) => ({ direction: "in", protocol: "tcp", ports, from: null, to: null, group_name: null });
const web = { id: "g-1", name: "web", project: "shop", etag: '"1"', rules: [rule("80")], labels: {}, state: "ready" };
const group = "/v1/security-groups/g-1";
const done = vi.fn();

/** The form, for the group as the page reads it. */
function Opened() {
  const { data } = useSecurityGroup("g-1");
  return data && <ChangeRules opened onClose={done} group={data as SecurityGroup} />;
}

afterEach(() => {
  vi.unstubAllGlobals();
  done.mockReset();
});

const ports = (place: number) => screen.getByRole("textbox", { name: `Ports of rule ${place}` });

test("a change is made only to the group that was seen, and says only what differs", async () => {
  const calls = fakeApi({
    [`GET ${group}`]: web,
    "GET /v1/security-groups": list(web),
    [`PATCH ${group}`]: { ...web, etag: '"2"' },
  });
  const { user } = show(<Opened />);
  await user.clear(await screen.findByRole("textbox", { name: "Ports of rule 1" }));
  await user.type(ports(1), "8080");
  await user.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => expect(done).toHaveBeenCalled());
  const [patch] = calls.filter(({ method }) => method === "PATCH");
  expect(patch?.headers.get("If-Match")).toBe('"1"');
  expect(patch?.body).toEqual({ rules: [{ direction: "in", protocol: "tcp", ports: "8080" }] });
});

test("when somebody was quicker, nothing is lost: theirs is shown, and mine is saved only if I say so", async () => {
  let now = web;
  const calls = fakeApi({
    [`GET ${group}`]: () => now,
    "GET /v1/security-groups": () => list(now),
    [`PATCH ${group}`]: ({ headers }: { headers: Headers }) =>
      headers.get("If-Match") === now.etag ? now : problem(412, { code: "precondition_failed", detail: "it changed" }),
  });
  const { user } = show(<Opened />);
  await user.clear(await screen.findByRole("textbox", { name: "Ports of rule 1" }));
  await user.type(ports(1), "8080");
  now = { ...web, etag: '"2"', rules: [rule("80"), rule("443")] };
  await user.click(screen.getByRole("button", { name: "Save" }));
  expect(await screen.findByText("Somebody changed it meanwhile")).toBeTruthy();
  expect(screen.getByText("in: TCP port 443 from everywhere")).toBeTruthy();
  expect(screen.getByRole("button", { name: "Save" })).toHaveProperty("disabled", true);
  expect(ports(1)).toHaveProperty("value", "8080");
  await user.click(screen.getByRole("button", { name: /^Keep mine/ }));
  await user.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => expect(done).toHaveBeenCalled());
  const patches = calls.filter(({ method }) => method === "PATCH");
  expect(patches.map(({ headers }) => headers.get("If-Match"))).toEqual(['"1"', '"2"']);
  expect(patches[1]?.body).toEqual({ rules: [{ direction: "in", protocol: "tcp", ports: "8080" }] });
});

test("theirs can be taken into the form instead", async () => {
  let now = web;
  fakeApi({ [`GET ${group}`]: () => now, "GET /v1/security-groups": () => list(now) });
  const { user, client } = show(<Opened />);
  await user.type(await screen.findByRole("textbox", { name: "Ports of rule 1" }), "80");
  now = { ...web, name: "front", etag: '"2"', rules: [rule("443")] };
  // As an event of the live stream does.
  await client.invalidateQueries();
  await user.click(await screen.findByRole("button", { name: "Show theirs in the form" }));
  expect(ports(1)).toHaveProperty("value", "443");
  expect(screen.getByRole("textbox", { name: "Name" })).toHaveProperty("value", "front");
  expect(screen.queryByText("Somebody changed it meanwhile")).toBeNull();
});

test("a refusal stands at the rule and the field that it is about", async () => {
  const errors = [{ pointer: "/rules/1/from", code: "invalid", detail: "the range is 10.0.0.0/8" }];
  fakeApi({
    [`GET ${group}`]: web,
    "GET /v1/security-groups": list(web),
    [`PATCH ${group}`]: problem(422, { code: "invalid", detail: "no", errors }),
  });
  const { user } = show(<Opened />);
  await user.click(await screen.findByRole("button", { name: "Add a rule" }));
  await user.click(await screen.findByRole("menuitem", { name: "Another rule" }));
  await user.click(screen.getByRole("combobox", { name: "Other side of rule 2" }));
  await user.click(await screen.findByRole("option", { name: "from addresses" }));
  await user.type(screen.getByRole("textbox", { name: "Addresses of rule 2" }), "10.0.0.1/8");
  await user.click(screen.getByRole("button", { name: "Save" }));
  await screen.findByText("the range is 10.0.0.0/8");
  expect(screen.getByRole("textbox", { name: "Addresses of rule 2" }).getAttribute("aria-invalid")).toBe("true");
  expect(done).not.toHaveBeenCalled();
});
