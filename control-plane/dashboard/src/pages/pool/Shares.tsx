import { useMemo } from "react";
import { type Node, useNodes } from "../../api/nodes.ts";
import { bytes, count } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { noteOf } from "../nodes/advice.ts";
import { Meter } from "../nodes/Meter.tsx";

const share = ({ pool }: Node) => (pool.limit_bytes > 0 ? pool.used_bytes / pool.limit_bytes : 0);

const columns: readonly Column<Node>[] = [
  {
    key: "state",
    title: "State",
    value: (node) => node.state,
    cell: (node) => <StateBadge state={node.state} reason={noteOf(node)} />,
    width: 150,
  },
  {
    key: "name",
    title: "Node",
    value: (node) => node.name,
    cell: (node) => <ThingLink kind="node" id={node.id} name={node.name} />,
  },
  {
    key: "pool",
    title: "Used",
    value: share,
    cell: ({ pool }) => <Meter compact label="Pool" used={pool.used_bytes} total={pool.limit_bytes} format={bytes} />,
    width: 104,
  },
  {
    key: "objects",
    title: "Objects",
    value: (node) => node.pool.objects,
    cell: (node) => count(node.pool.objects),
    align: "right",
    width: 100,
    from: "sm",
  },
  {
    key: "unchecked",
    title: "To be compared",
    value: (node) => node.repair?.unchecked_objects ?? null,
    cell: (node) => count(node.repair?.unchecked_objects),
    align: "right",
    width: 120,
    from: "md",
  },
  {
    key: "missing",
    title: "To be sent",
    value: (node) => node.repair?.missing.bytes ?? null,
    cell: (node) => bytes(node.repair?.missing.bytes),
    align: "right",
    width: 100,
    from: "sm",
  },
  {
    key: "rate",
    title: "Rate",
    value: (node) => node.repair?.bytes_per_s ?? null,
    cell: (node) => (node.repair ? `${bytes(node.repair.bytes_per_s)}/s` : "–"),
    align: "right",
    width: 100,
    from: "md",
  },
  {
    key: "lost",
    title: "Lost",
    value: (node) => node.pool.lost_objects,
    cell: (node) => count(node.pool.lost_objects),
    align: "right",
    width: 80,
    from: "md",
  },
  { key: "id", title: "Id", value: (node) => node.id, hidden: true, width: 300 },
];

const idOf = (node: Node) => node.id;

/** What each node has of the pool, and how far it is with the repair. */
export function Shares() {
  const nodes = useNodes();
  // A node that was declared dead has no share.
  const rows = useMemo(() => nodes.data?.items.filter(({ state }) => state !== "fenced"), [nodes.data]);
  return (
    <Panel title="Shares of the nodes">
      <ThingsTable
        name="shares"
        rows={rows}
        complete={nodes.data?.complete ?? false}
        error={nodes.error}
        onRetry={() => void nodes.refetch()}
        rowId={idOf}
        columns={columns}
        sort="name"
        link={(node) => ({ to: "/nodes/$node", params: { node: node.id } })}
        empty="No node has joined yet."
      />
    </Panel>
  );
}
