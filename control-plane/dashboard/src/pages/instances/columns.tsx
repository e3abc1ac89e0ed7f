import type { Instance } from "../../api/instances.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { bytes, duration } from "../../ui/format.ts";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { addressesOf, addressOf } from "../networks/network-words.ts";
import { explain } from "./state-words.ts";

/** Bytes of all disks that no version has. */
export function unsavedBytes(instance: Pick<Instance, "disks">): number {
  return instance.disks.reduce((sum, disk) => sum + disk.unsaved_bytes, 0);
}

/** How long its guest took from the hypervisor's start until it was ready. */
function bootMs(instance: Instance): number | null {
  const { started_at } = instance.steps;
  if (started_at === null || instance.ready_at === null) return null;
  return Date.parse(instance.ready_at) - Date.parse(started_at);
}

const state: Column<Instance> = {
  key: "state",
  title: "State",
  value: (instance) => instance.state,
  cell: (instance) => <StateBadge state={instance.state} reason={instance.reason} tone={explain(instance).tone} />,
  width: 192,
};

const name: Column<Instance> = {
  key: "name",
  title: "Name",
  value: (instance) => instance.name,
  cell: (instance) => <ThingLink kind="instance" id={instance.id} name={instance.name} project={instance.project} />,
};

const deployment: Column<Instance> = {
  key: "deployment",
  title: "Deployment",
  value: (instance) => instance.deployment_name,
  cell: (instance) => (
    <ThingLink kind="deployment" id={instance.deployment} name={instance.deployment_name} project={instance.project} />
  ),
  from: "md",
};

const node: Column<Instance> = {
  key: "node",
  title: "Node",
  value: (instance) => instance.node_name,
  cell: (instance) =>
    instance.node === undefined ? "–" : <ThingLink kind="node" id={instance.node} name={instance.node_name ?? null} />,
  width: 130,
  from: "sm",
};

const rest: Column<Instance>[] = [
  {
    key: "address",
    title: "Address",
    value: ({ nics }) => addressesOf(nics),
    cell: ({ nics }) => {
      const [first, ...others] = nics;
      if (first === undefined) return "–";
      return `${addressOf(first) ?? "–"}${others.length > 0 ? ` +${others.length}` : ""}`;
    },
    width: 130,
    from: "xl",
  },
  { key: "zone", title: "Zone", value: (instance) => instance.zone, width: 90, from: "lg" },
  { key: "cpus", title: "CPUs", value: (instance) => instance.cpus, align: "right", width: 70, from: "md" },
  {
    key: "memory",
    title: "Memory",
    value: (instance) => instance.memory_bytes,
    cell: (instance) => bytes(instance.memory_bytes),
    align: "right",
    width: 90,
    from: "md",
  },
  {
    key: "unsaved",
    title: "Unsaved",
    value: unsavedBytes,
    cell: (instance) => <ByteSize value={unsavedBytes(instance)} />,
    align: "right",
    width: 92,
    from: "sm",
  },
  {
    key: "age",
    title: "Created",
    value: (instance) => instance.created_at,
    cell: (instance) => <TimeAgo time={instance.created_at} />,
    width: 100,
    from: "sm",
  },
  {
    key: "boot",
    title: "Boot took",
    value: bootMs,
    cell: (instance) => duration(bootMs(instance)),
    align: "right",
    width: 96,
    hidden: true,
  },
  { key: "boots", title: "Boots", value: (instance) => instance.boots, align: "right", width: 70, hidden: true },
  {
    key: "labels",
    title: "Labels",
    value: (instance) =>
      Object.entries(instance.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
    width: 220,
    from: "xl",
  },
  {
    key: "detail",
    title: "Why",
    value: (instance) => instance.detail,
    cell: (instance) => (instance.detail === null ? "" : <span title={instance.detail}>{instance.detail}</span>),
    from: "xl",
  },
  { key: "reason", title: "Reason", value: (instance) => instance.reason, width: 150, hidden: true },
  { key: "project", title: "Project", value: (instance) => instance.project, width: 120, from: "xl" },
  { key: "runtime", title: "Runtime", value: (instance) => instance.runtime, width: 90, hidden: true },
  { key: "id", title: "Id", value: (instance) => instance.id, width: 300, hidden: true },
];

/** Nodes are for operators. */
export const operatorColumns: readonly Column<Instance>[] = [state, name, deployment, node, ...rest];
export const tenantColumns: readonly Column<Instance>[] = [
  state,
  name,
  deployment,
  ...rest.filter(({ key }) => key !== "project"),
];
