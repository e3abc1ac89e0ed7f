import type { Deployment } from "../../api/deployments.ts";
import { bytes, count } from "../../ui/format.ts";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { labelTexts } from "./labels.ts";
import { MembersBar } from "./MembersBar.tsx";
import { protectOf } from "./protection/protect-form.ts";
import { SourceLink, sourceText } from "./source.tsx";

export const deploymentColumns: readonly Column<Deployment>[] = [
  {
    key: "state",
    title: "State",
    value: ({ state }) => state,
    cell: ({ state, reason }) => <StateBadge state={state} reason={reason} />,
    width: 112,
  },
  {
    key: "name",
    title: "Name",
    value: ({ name }) => name,
    cell: ({ id, name, project }) => <ThingLink kind="deployment" id={id} name={name} project={project} />,
  },
  {
    key: "members",
    title: "Members",
    value: ({ counts }) => counts.failed ?? 0,
    cell: (deployment) => <MembersBar deployment={deployment} />,
    width: 170,
    from: "sm",
  },
  {
    key: "ready",
    title: "Ready",
    value: ({ ready }) => ready,
    cell: (deployment) => `${count(deployment.ready)} / ${count(deployment.count)}`,
    width: 120,
  },
  {
    key: "protection",
    title: "Protection",
    value: protectionText,
    width: 130,
    from: "xl",
  },
  {
    key: "source",
    title: "Starts from",
    value: sourceText,
    cell: (deployment) => <SourceLink deployment={deployment} />,
    from: "md",
  },
  {
    key: "cpus",
    title: "CPUs",
    value: ({ runtime, cpus }) => (runtime === "none" ? null : cpus),
    align: "right",
    width: 70,
    from: "xl",
  },
  {
    key: "memory",
    title: "Memory",
    value: ({ runtime, memory_bytes }) => (runtime === "none" ? null : memory_bytes),
    cell: ({ runtime, memory_bytes }) => (runtime === "none" ? "–" : bytes(memory_bytes)),
    align: "right",
    width: 96,
    from: "xl",
  },
  { key: "runtime", title: "Runtime", value: ({ runtime }) => runtime, width: 96, hidden: true },
  { key: "labels", title: "Labels", value: ({ labels }) => labelTexts(labels).join(" "), from: "xl" },
  { key: "project", title: "Project", value: ({ project }) => project, width: 130, from: "lg" },
  {
    key: "created",
    title: "Age",
    value: ({ created_at }) => created_at,
    cell: ({ created_at }) => <TimeAgo time={created_at} />,
    width: 96,
    from: "sm",
  },
  { key: "id", title: "Id", value: ({ id }) => id, hidden: true, width: 300 },
];

/** `every 15m`, `none`, or that not all of it is saved. */
function protectionText(deployment: Deployment): string {
  const protect = protectOf(deployment);
  if (protect === undefined) return "none";
  return deployment.protection?.trouble ? "not all saved" : `every ${protect.every}`;
}
