import type { Node } from "../../api/nodes.ts";
import { bytes, count } from "../../ui/format.ts";
import { StateBadge, ToneIcon } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { adviceFor, conditionWord, noteOf } from "./advice.ts";
import { Meter } from "./Meter.tsx";

const share = (used: number, total: number) => (total > 0 ? used / total : 0);

/** `cordoned` where new instances are kept away from a node that is well otherwise. */
export const placementOf = (node: Node) => (node.schedulable ? "open" : "cordoned");

export const nodeColumns: readonly Column<Node>[] = [
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
    key: "condition",
    title: "Conditions",
    value: (node) => node.conditions.map(({ kind }) => kind).join(" ") || null,
    cell: (node) => <Conditions node={node} />,
    from: "md",
  },
  {
    key: "instances",
    title: "Instances",
    value: (node) => node.instances,
    cell: (node) => count(node.instances),
    align: "right",
    width: 88,
  },
  {
    key: "cpus",
    title: "CPUs",
    value: (node) => share(node.capacity.cpus_used, node.capacity.cpus),
    cell: ({ capacity }) => (
      <Meter compact label="CPUs" used={capacity.cpus_used} total={capacity.cpus} format={count} warns={false} />
    ),
    width: 104,
    from: "sm",
  },
  {
    key: "memory",
    title: "Memory",
    value: (node) => share(node.capacity.memory_used_bytes, node.capacity.memory_bytes),
    cell: ({ capacity }) => (
      <Meter
        compact
        label="Memory"
        used={capacity.memory_used_bytes}
        total={capacity.memory_bytes}
        format={bytes}
        warns={false}
      />
    ),
    width: 104,
    from: "sm",
  },
  {
    key: "pool",
    title: "Pool",
    value: (node) => share(node.pool.used_bytes, node.pool.limit_bytes),
    cell: ({ pool }) => <Meter compact label="Pool" used={pool.used_bytes} total={pool.limit_bytes} format={bytes} />,
    width: 104,
    from: "sm",
  },
  { key: "zone", title: "Zone", value: (node) => node.zone, width: 90, from: "xl" },
  { key: "placement", title: "Placement", value: placementOf, width: 100, hidden: true },
  {
    key: "hypervisor",
    title: "Runs guests by",
    value: (node) => node.hypervisor ?? "none",
    width: 120,
    from: "xl",
  },
  { key: "version", title: "Agent", value: (node) => node.agent_version, width: 80, from: "xl" },
  { key: "address", title: "Address", value: (node) => node.address, width: 160, from: "xl" },
  {
    key: "seen",
    title: "Last seen",
    value: (node) => node.last_seen_at,
    cell: (node) => <TimeAgo time={node.last_seen_at} />,
    width: 100,
    from: "lg",
  },
  { key: "id", title: "Id", value: (node) => node.id, hidden: true, width: 300 },
];

function Conditions({ node }: { node: Node }) {
  if (node.conditions.length === 0) return <>–</>;
  const [worst] = adviceFor({ ...node, state: "ready", schedulable: true });
  const words = node.conditions.map(({ kind }) => conditionWord(kind)).join(", ");
  return (
    <span title={node.conditions.map(({ detail }) => detail).join("\n")}>
      <span style={{ display: "inline-flex", verticalAlign: "-2px", marginRight: 6 }}>
        <ToneIcon tone={worst?.tone ?? "warn"} />
      </span>
      {words}
    </span>
  );
}
