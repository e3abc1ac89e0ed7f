import { describe, expect, test } from "vitest";
import type { Version } from "../../api/versions.ts";
import { sizeOf, treePath, treeRows, versionTree } from "./tree.ts";

let age = 0;
function version(name: string, more: Partial<Version> = {}): Version {
  age += 1;
  return {
    id: name,
    name,
    parent: null,
    size_bytes: 10,
    stored_bytes: 1,
    created_at: `2026-11-29T12:${String(age % 60).padStart(2, "0")}:00Z`,
    image: null,
    snapshot: null,
    snapshot_name: null,
    ...more,
  } as Version;
}
const members = (snapshot: string, count: number, parent: (n: number) => string) =>
  Array.from({ length: count }, (_, n) =>
    version(`${snapshot}/web.${n}`, { parent: parent(n), snapshot, snapshot_name: snapshot }),
  );

describe("the version tree", () => {
  const one = version("demo@1", { image: "demo" });
  const two = version("demo@2", { image: "demo", parent: "demo@1" });

  test("has the versions of the image as its trunk, in the order of their numbers", () => {
    const tree = versionTree([one, two], [one, two], 50);
    expect(tree.map(({ title }) => title)).toEqual(["demo@1", "demo@2"]);
    expect(sizeOf(tree)).toBe(2);
  });

  test("shows a snapshot of many disks as one node, and the next snapshot of them below it", () => {
    const first = members("first", 1000, () => "demo@1");
    const second = members("second", 1000, (n) => `first/web.${n}`);
    const tree = versionTree([one], [one, ...first, ...second], 50);
    expect(sizeOf(tree)).toBe(3);
    expect(tree[0]?.children[0]).toMatchObject({ kind: "snapshot", title: "first", stored_bytes: 1000 });
    expect(tree[0]?.children[0]?.children[0]).toMatchObject({ title: "second" });
  });

  test("shows images made from a version, and single disks by name", () => {
    const clone = version("other@1", { image: "other", parent: "demo@1" });
    const alone = members("alone", 1, () => "demo@1");
    const tree = versionTree([one], [clone, ...alone], 50);
    expect(tree[0]?.children.map(({ kind, title }) => [kind, title])).toEqual([
      ["version", "other@1"],
      ["version", "alone/web.0"],
    ]);
  });

  test("gathers many saved disks without a snapshot", () => {
    const saved = Array.from({ length: 6 }, (_, n) => version(`saved ${n}`, { parent: "demo@1" }));
    expect(versionTree([one], saved, 50)[0]?.children).toMatchObject([{ kind: "group", title: "6 saved disks" }]);
  });

  test("keeps the newest where there are many, and says how many are left out", () => {
    const trunk = Array.from({ length: 120 }, (_, n) => version(`demo@${n + 1}`, { image: "demo" }));
    const tree = versionTree(trunk, trunk, 50);
    expect(tree).toHaveLength(50);
    expect(tree[0]).toMatchObject({ kind: "rest", title: "71 older ones" });
    expect(tree.at(-1)?.title).toBe("demo@120");
  });

  test("ends even if versions were each other's parents", () => {
    const a = version("a", { parent: "b" });
    const b = version("b", { parent: "a" });
    const c = version("c", { parent: "c" });
    expect(sizeOf(versionTree([a], [a, b, c], 50))).toBe(2);
  });

  test("is only its trunk where the controller does not tell parents", () => {
    const { parent: _, ...unknown } = version("x");
    expect(sizeOf(versionTree([one], [one, unknown as Version], 50))).toBe(1);
  });
});

test("folded nodes hide what is below them", () => {
  const one = version("demo@1", { image: "demo" });
  const tree = versionTree(
    [one],
    members("first", 2, () => "demo@1"),
    50,
  );
  expect(treeRows(tree, () => false).map(({ depth, open, parent }) => [depth, open, parent])).toEqual([
    [0, true, undefined],
    [1, undefined, 0],
  ]);
  expect(treeRows(tree, (id) => id === "demo@1")).toMatchObject([{ open: false }]);
});

test("the trunk is one line, and each branch leaves its parent", () => {
  const roots = [version("demo@1"), version("demo@2")];
  const rows = treeRows(versionTree(roots, [version("clone@1", { parent: "demo@1", image: "x" })], 50), () => false);
  const { trunk, rest } = treePath(rows, 40, 20);
  expect(trunk).toBe("M10 20V100");
  expect(rest).toBe("M10 20V52q0 8 8 8H30");
});
