/**
 * The version tree: the versions of an image in the order of their numbers, and what was made from each of them as its
 * branches. The disks of one snapshot are one node, so that a snapshot of 1,000 instances takes one line.
 * Pure; tested in tree.test.ts.
 */
import type { Version } from "../../api/versions.ts";

export interface TreeNode {
  id: string;
  kind: "version" | "snapshot" | "group" | "rest";
  title: string;
  /** The versions that it stands for; for `rest` those that are not drawn. */
  versions: readonly Version[];
  size_bytes: number;
  stored_bytes: number;
  created_at: string;
  children: TreeNode[];
}

/** More versions of instances than this without a snapshot are one node. */
const loose = 5;

/** A tree for each root. Roots are drawn as they are given; what descends from them is found in `all`. */
export function versionTree(roots: readonly Version[], all: readonly Version[], most: number): TreeNode[] {
  const children = new Map<string, Version[]>();
  const ids = new Set(roots.map(({ id }) => id));
  for (const version of all) {
    if (!version.parent || ids.has(version.id)) continue;
    const siblings = children.get(version.parent);
    if (siblings === undefined) children.set(version.parent, [version]);
    else siblings.push(version);
  }
  const build = (kind: TreeNode["kind"], title: string, versions: readonly Version[], id: string): TreeNode => {
    const below = versions.flatMap((version) => {
      const found = children.get(version.id) ?? [];
      // Each version is drawn once, whatever the data says.
      children.delete(version.id);
      return found;
    });
    return { ...nodeOf(kind, title, versions, id), children: branches(below) };
  };
  const branches = (versions: readonly Version[]): TreeNode[] => {
    const bySnapshot = new Map<string, Version[]>();
    const single: Version[] = [];
    const other: Version[] = [];
    for (const version of versions) {
      if (version.snapshot) {
        const members = bySnapshot.get(version.snapshot);
        if (members === undefined) bySnapshot.set(version.snapshot, [version]);
        else members.push(version);
      } else if (version.image) single.push(version);
      else other.push(version);
    }
    const nodes: TreeNode[] = [];
    for (const [snapshot, members] of bySnapshot) {
      const [first] = members;
      if (members.length === 1 && first !== undefined) single.push(first);
      else nodes.push(build("snapshot", first?.snapshot_name ?? "a deleted snapshot", members, snapshot));
    }
    if (other.length > loose) {
      nodes.push(build("group", `${other.length} saved disks`, other, `group ${other[0]?.id}`));
    } else single.push(...other);
    nodes.push(...single.map((version) => build("version", version.name, [version], version.id)));
    return cut(nodes.sort(byAge), most);
  };
  const trunk = roots.map((version) => build("version", version.name, [version], version.id));
  return cut(trunk, most);
}

const byAge = (a: TreeNode, b: TreeNode) =>
  a.created_at < b.created_at ? -1 : a.created_at > b.created_at ? 1 : a.id < b.id ? -1 : 1;

function nodeOf(kind: TreeNode["kind"], title: string, versions: readonly Version[], id: string): TreeNode {
  return {
    id,
    kind,
    title,
    versions,
    size_bytes: versions.reduce((sum, version) => sum + version.size_bytes, 0),
    stored_bytes: versions.reduce((sum, version) => sum + version.stored_bytes, 0),
    created_at: versions.reduce(
      (first, { created_at }) => (first === "" || created_at < first ? created_at : first),
      "",
    ),
    children: [],
  };
}

/** Keeps the newest of many, and one node that stands for the older ones. */
function cut(nodes: TreeNode[], most: number): TreeNode[] {
  if (nodes.length <= most) return nodes;
  const older = nodes.slice(0, nodes.length - most + 1);
  const versions = older.flatMap((node) => node.versions);
  return [
    nodeOf("rest", `${older.length} older ones`, versions, `rest ${older[0]?.id}`),
    ...nodes.slice(nodes.length - most + 1),
  ];
}

export interface TreeRow {
  node: TreeNode;
  depth: number;
  /** The row of the parent; undefined for the trunk. */
  parent: number | undefined;
  /** Whether what is below it is shown; undefined where nothing is. */
  open: boolean | undefined;
}

/** The rows of a tree of which some nodes are folded. */
export function treeRows(trunk: readonly TreeNode[], isFolded: (id: string) => boolean): TreeRow[] {
  const rows: TreeRow[] = [];
  const add = (node: TreeNode, depth: number, parent: number | undefined) => {
    const open = node.children.length === 0 ? undefined : !isFolded(node.id);
    const at = rows.push({ node, depth, parent, open }) - 1;
    if (open) for (const child of node.children) add(child, depth + 1, at);
  };
  for (const node of trunk) add(node, 0, undefined);
  return rows;
}

/** How many rows a tree has when nothing is folded. */
export function sizeOf(trunk: readonly TreeNode[]): number {
  return trunk.reduce((sum, node) => sum + 1 + sizeOf(node.children), 0);
}

/** The lines between the rows, as the path of an SVG. The trunk is one line; branches leave their parent downwards. */
export function treePath(rows: readonly TreeRow[], rowHeight: number, indent: number): { trunk: string; rest: string } {
  const x = (depth: number) => indent * depth + indent / 2;
  const y = (row: number) => rowHeight * row + rowHeight / 2;
  const last = rows.findLastIndex(({ depth }) => depth === 0);
  const trunk = last > 0 ? `M${x(0)} ${y(0)}V${y(last)}` : "";
  const bend = Math.min(indent / 2, 8);
  const rest = rows
    .map(({ parent, depth }, row) =>
      parent === undefined
        ? ""
        : `M${x(depth - 1)} ${y(parent)}V${y(row) - bend}q0 ${bend} ${bend} ${bend}H${x(depth)}`,
    )
    .join("");
  return { trunk, rest };
}
