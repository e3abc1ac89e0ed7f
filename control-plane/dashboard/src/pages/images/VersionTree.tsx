import { Button, Group, Loader, Text } from "@mantine/core";
import { IconChevronDown, IconChevronRight } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { type KeyboardEvent, useMemo, useRef, useState } from "react";
import { searchOf } from "../../api/scope.ts";
import type { Version } from "../../api/versions.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { count } from "../../ui/format.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { sizeOf, type TreeNode, treePath, treeRows, versionTree } from "./tree.ts";
import classes from "./VersionTree.module.css";

interface Props {
  /** The trunk, from above to below. */
  roots: readonly Version[];
  /** All versions among which the branches are found. */
  all: readonly Version[];
  /** False while more versions are on their way. */
  complete: boolean;
  /** The version that the page is about. */
  current?: string;
}

const rowHeight = 38;
const indent = 22;
/** A larger tree begins with its branches folded. */
const unfoldedAtMost = 40;
/** As many branches of one node are drawn at first. */
const drawnAtFirst = 50;

/**
 * The versions of an image and what was made from them. One stop of the tab key: arrows move and fold, enter opens.
 */
export function VersionTree({ roots, all, complete, current }: Props) {
  const [most, setMost] = useState(drawnAtFirst);
  const [changed, setChanged] = useState<ReadonlyMap<string, boolean>>(new Map());
  const [active, setActive] = useState<string>();
  const list = useRef<HTMLDivElement>(null);
  const navigate = useNavigate();
  const tree = useMemo(() => versionTree(roots, all, most), [roots, all, most]);
  const large = sizeOf(tree) > unfoldedAtMost;
  const rows = treeRows(tree, (id) => changed.get(id) ?? large);
  const { trunk, rest } = treePath(rows, rowHeight, indent);
  const depth = rows.reduce((deepest, row) => Math.max(deepest, row.depth), 0);
  const isCut = rows.some(({ node }) => node.kind === "rest");
  const at = Math.max(
    0,
    rows.findIndex(({ node }) => node.id === active),
  );

  const fold = (id: string, folded: boolean) => setChanged((before) => new Map(before).set(id, folded));
  const focus = (index: number) => {
    const row = rows[index];
    if (row === undefined) return;
    setActive(row.node.id);
    list.current?.querySelectorAll<HTMLElement>("[role=treeitem]")[index]?.focus();
  };
  const open = (node: TreeNode) => {
    const [first] = node.versions;
    if (first === undefined || node.kind === "rest" || node.kind === "group") return;
    if (node.kind === "snapshot") {
      void navigate({ to: "/snapshots/$snapshot", params: { snapshot: node.id }, search: searchOf(first.project) });
    } else void navigate({ to: "/versions/$version", params: { version: first.id }, search: searchOf(first.project) });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const row = rows[at];
    if (row === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "j") focus(at + 1);
    else if (event.key === "ArrowUp" || event.key === "k") focus(at - 1);
    else if (event.key === "Home") focus(0);
    else if (event.key === "End") focus(rows.length - 1);
    else if (event.key === "ArrowRight" && row.open === false) fold(row.node.id, false);
    else if (event.key === "ArrowRight" && row.open) focus(at + 1);
    else if (event.key === "ArrowLeft" && row.open) fold(row.node.id, true);
    else if (event.key === "ArrowLeft" && row.parent !== undefined) focus(row.parent);
    else if (event.key === "Enter" && event.target === event.currentTarget) open(row.node);
    else if (event.key === "Enter" && (event.target as HTMLElement).getAttribute("role") === "treeitem") open(row.node);
    else return;
    event.preventDefault();
  };

  return (
    <div className={classes.box}>
      <div className={classes.head} aria-hidden>
        <span>Version</span>
        <span>Stored</span>
        <span className={classes.size}>Size</span>
        <span>Made</span>
      </div>
      <div ref={list} className={classes.tree} role="tree" aria-label="Versions" onKeyDown={onKeyDown}>
        <svg
          className={classes.lines}
          width={indent * (depth + 1)}
          height={rowHeight * rows.length}
          aria-hidden="true"
          focusable="false"
        >
          <path d={rest} className={classes.branch} />
          <path d={trunk} className={classes.trunk} />
          {rows.map(({ node, depth: deep }, row) => (
            <circle
              key={node.id}
              cx={indent * deep + indent / 2}
              cy={rowHeight * row + rowHeight / 2}
              r={node.kind === "version" ? 5 : 7}
              className={classes.node}
              data-kind={node.kind}
              data-current={node.id === current || undefined}
            />
          ))}
        </svg>
        {rows.map(({ node, depth: deep, open: isOpen }, index) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the tree takes the keys of all its items
          <div
            key={node.id}
            role="treeitem"
            tabIndex={index === at ? 0 : -1}
            aria-level={deep + 1}
            aria-expanded={isOpen}
            aria-current={node.id === current || undefined}
            className={classes.row}
            style={{ height: rowHeight, paddingLeft: indent * (deep + 1) + 6 }}
            onFocus={() => setActive(node.id)}
            onClick={(event) => {
              if (!(event.target as HTMLElement).closest("a,button")) open(node);
            }}
          >
            <span className={classes.name}>
              <Title node={node} />
              {isOpen !== undefined && (
                <button
                  type="button"
                  tabIndex={-1}
                  className={classes.fold}
                  onClick={() => fold(node.id, isOpen)}
                  aria-label={
                    isOpen ? `Fold what was made from ${node.title}` : `Show what was made from ${node.title}`
                  }
                >
                  {isOpen ? <IconChevronDown size={14} /> : <IconChevronRight size={14} />}
                  {!isOpen && (
                    <span>
                      {count(sizeOf(node.children))}
                      {node.children.some(({ kind }) => kind === "rest") && "+"}
                    </span>
                  )}
                </button>
              )}
            </span>
            <span className={classes.number}>
              <ByteSize value={node.stored_bytes} />
            </span>
            <span className={`${classes.number} ${classes.size}`}>
              <ByteSize value={node.size_bytes} />
            </span>
            <span className={classes.age}>
              <TimeAgo time={node.created_at} />
            </span>
          </div>
        ))}
      </div>
      <Group px={14} py={8} gap="md" className={classes.foot}>
        {!complete && <Loader size={14} aria-label="Loading further versions" />}
        {isCut && (
          <Button size="compact-xs" variant="default" onClick={() => setMost(Number.POSITIVE_INFINITY)}>
            Draw all versions
          </Button>
        )}
        <Text size="xs" c="dimmed">
          {rows.some(({ depth: deep }) => deep > 0)
            ? "Branches are the snapshots, disks and images that were made from a version."
            : "Nothing was made from these versions yet, as far as the controller tells."}
        </Text>
      </Group>
    </div>
  );
}

function Title({ node }: { node: TreeNode }) {
  const [first] = node.versions;
  if (first === undefined) return <>{node.title}</>;
  switch (node.kind) {
    case "version":
      return <ThingLink kind="version" id={first.id} name={node.title} project={first.project} />;
    case "snapshot":
      return (
        <>
          <ThingLink kind="snapshot" id={node.id} name={node.title} project={first.project} />
          <span className={classes.note}>snapshot, {count(node.versions.length)} disks</span>
        </>
      );
    default:
      return <span className={classes.note}>{node.title}</span>;
  }
}
