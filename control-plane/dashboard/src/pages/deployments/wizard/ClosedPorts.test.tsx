import { screen, waitFor } from "@testing-library/react";
import { useState } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { fakeApi, list, show } from "../../../testing/pages.tsx";
import { ClosedPorts } from "./ClosedPorts.tsx";
import { type Card, usualCard } from "./cards.ts";

const rule = (ports: string) => ({ direction: "in", protocol: "tcp", ports, from: null, to: null, group_name: null });
const group = (name: string, ...rules: unknown[]) => ({ id: `g-${name}`, name, project: "shop", etag: '"3"', rules });

/** A card of the wizard, with the groups that are chosen. */
function Wizard({ start }: { start: Partial<Card> }) {
  const [card, setCard] = useState<Card>({ ...usualCard, ...start });
  return (
    <>
      <output>{card.groups.join(" ")}</output>
      <ClosedPorts card={card} project="shop" onGroups={(groups) => setCard({ ...card, groups })} />
    </>
  );
}

afterEach(() => vi.unstubAllGlobals());

test("a port that no group lets in is told, and a group that lets it in is added with one click", async () => {
  fakeApi({
    "GET /v1/security-groups": list(
      group("default"),
      group("wide", rule("1-1000"), rule("80")),
      group("ssh", rule("22")),
    ),
  });
  const { user } = show(<Wizard start={{ ports: ["22"] }} />);
  expect(await screen.findByText("Published, but closed")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Add group ssh" }));
  expect(screen.getByRole("status").textContent).toBe("default ssh");
  expect(screen.queryByText("Published, but closed")).toBeNull();
});

test("where no group lets it in, one is made", async () => {
  const groups = [group("default")];
  const calls = fakeApi({
    "GET /v1/security-groups": () => list(...groups),
    "POST /v1/security-groups": () => {
      groups.push(group("http", rule("80")));
      return groups[1];
    },
  });
  const { user } = show(<Wizard start={{ ports: ["80"] }} />);
  await user.click(await screen.findByRole("button", { name: "Make a group that lets it in" }));
  await waitFor(() => expect(screen.queryByText("Published, but closed")).toBeNull());
  expect(screen.getByRole("status").textContent).toBe("default http");
  expect(calls.find(({ method }) => method === "POST")).toMatchObject({
    query: "project=shop",
    body: { name: "http", rules: [{ direction: "in", protocol: "tcp", ports: "80" }] },
  });
});

test("a group that the card has is extended without losing its rules, as it was seen", async () => {
  const calls = fakeApi({
    "GET /v1/security-groups": list(group("default"), group("web", rule("80"))),
    "PATCH /v1/security-groups/g-web": group("web", rule("80"), rule("443")),
  });
  const { user } = show(<Wizard start={{ groups: ["default", "web"], ports: ["443"] }} />);
  await user.click(await screen.findByRole("button", { name: "Add a rule to web" }));
  await waitFor(() => expect(calls.some(({ method }) => method === "PATCH")).toBe(true));
  const patch = calls.find(({ method }) => method === "PATCH");
  expect(patch?.headers.get("If-Match")).toBe('"3"');
  expect(patch?.body).toEqual({
    rules: [
      { direction: "in", protocol: "tcp", ports: "80" },
      { direction: "in", protocol: "tcp", ports: "443" },
    ],
  });
});

test("nothing is said about ports that are open, or before the groups are read", async () => {
  fakeApi({ "GET /v1/security-groups": list(group("default", rule("22"))) });
  show(<Wizard start={{ ports: ["22"] }} />);
  await screen.findByRole("status");
  expect(screen.queryByText("Published, but closed")).toBeNull();
});
