import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Version } from "../../api/versions.ts";
import { VersionTree } from "./VersionTree.tsx";

const navigate = vi.hoisted(() => vi.fn());
vi.mock("@tanstack/react-router", () => ({ useNavigate: () => navigate }));
vi.mock("../../ui/ThingLink.tsx", () => ({ ThingLink: ({ name }: { name: string }) => <a href="/x">{name}</a> }));

function version(name: string, more: Partial<Version> = {}): Version {
  return {
    id: name,
    name,
    project: "default",
    parent: null,
    image: null,
    snapshot: null,
    size_bytes: 2 ** 30,
    stored_bytes: 2 ** 20,
    created_at: "2026-11-29T12:00:00Z",
    ...more,
  } as Version;
}

const one = version("demo@1", { image: "demo" });
const two = version("demo@2", { image: "demo" });
const members = (snapshot: string, count: number) =>
  Array.from({ length: count }, (_, n) =>
    version(`${snapshot}/web.${n}`, { parent: "demo@1", snapshot, snapshot_name: snapshot }),
  );

const show = (all: Version[]) =>
  render(
    <MantineProvider>
      <VersionTree roots={[one, two]} all={all} complete />
    </MantineProvider>,
  );
const names = () => screen.getAllByRole("treeitem").map((item) => item.querySelector("a")?.textContent);

describe("the version tree", () => {
  beforeEach(() => navigate.mockClear());

  test("is walked with the arrow keys, and enter opens", async () => {
    show(members("nightly", 4));
    expect(names()).toEqual(["demo@1", "nightly", "demo@2"]);
    const user = userEvent.setup();
    await user.tab();
    await user.keyboard("{ArrowDown}{Enter}");
    expect(navigate).toHaveBeenCalledWith(
      expect.objectContaining({ to: "/snapshots/$snapshot", params: { snapshot: "nightly" } }),
    );
    await user.keyboard("{End}{Enter}");
    expect(navigate).toHaveBeenLastCalledWith(expect.objectContaining({ params: { version: "demo@2" } }));
  });

  test("is folded by the left key and unfolded by the right one", async () => {
    show(members("nightly", 4));
    const user = userEvent.setup();
    await user.tab();
    await user.keyboard("{ArrowLeft}");
    expect(names()).toEqual(["demo@1", "demo@2"]);
    expect(screen.getAllByRole("treeitem")[0]?.getAttribute("aria-expanded")).toBe("false");
    await user.keyboard("{ArrowRight}");
    expect(names()).toEqual(["demo@1", "nightly", "demo@2"]);
  });

  test("begins folded when hundreds of branches leave a version", () => {
    show(Array.from({ length: 300 }, (_, n) => members(`s${n}`, 2)).flat());
    expect(names()).toEqual(["demo@1", "demo@2"]);
  });
});
