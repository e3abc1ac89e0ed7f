import type { Operation } from "../../api/operations.ts";
import { duration } from "../../ui/format.ts";
import { OperationProgress } from "../../ui/OperationProgress.tsx";
import { titleOf } from "../../ui/operation-title.ts";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { Took } from "./Took.tsx";

/** How long an operation took, or has taken so far. */
export function tookMs(operation: Operation, now: number): number {
  const end = operation.finished_at === null ? now : Date.parse(operation.finished_at);
  return end - Date.parse(operation.started_at ?? operation.created_at);
}

export const operationColumns: readonly Column<Operation>[] = [
  {
    key: "state",
    title: "State",
    value: (operation) => operation.state,
    cell: (operation) => <StateBadge kind="operation" state={operation.state} />,
    width: 124,
  },
  {
    key: "operation",
    title: "Operation",
    value: titleOf,
    cell: (operation) => (
      <ThingLink kind="operation" id={operation.id} name={titleOf(operation)} project={operation.project} />
    ),
  },
  { key: "kind", title: "Kind", value: (operation) => operation.kind, width: 150, hidden: true },
  {
    key: "target",
    title: "Target",
    value: (operation) => operation.target.name,
    cell: (operation) => <ThingLink {...operation.target} project={operation.project} />,
    width: 170,
    from: "md",
  },
  {
    key: "progress",
    title: "Progress",
    value: (operation) => (operation.progress.total > 0 ? operation.progress.done / operation.progress.total : 0),
    cell: (operation) => <OperationProgress operation={operation} compact />,
    width: 200,
    from: "sm",
  },
  {
    key: "error",
    title: "Error",
    value: (operation) => operation.error?.detail,
    cell: (operation) =>
      operation.error === null ? "" : <span title={operation.error.detail}>{operation.error.detail}</span>,
    from: "xl",
  },
  { key: "by", title: "By", value: (operation) => operation.requested_by, width: 110, from: "md" },
  { key: "project", title: "Project", value: (operation) => operation.project, width: 120, from: "xl" },
  {
    key: "created",
    title: "Begun",
    value: (operation) => operation.created_at,
    cell: (operation) => <TimeAgo time={operation.created_at} />,
    width: 100,
    from: "sm",
  },
  {
    key: "took",
    title: "Took",
    value: (operation) => tookMs(operation, Date.now()),
    cell: (operation) =>
      operation.finished_at === null ? <Took operation={operation} /> : duration(tookMs(operation, 0)),
    align: "right",
    width: 96,
    from: "sm",
  },
  { key: "request", title: "Request", value: (operation) => operation.request_id, hidden: true, width: 300 },
  { key: "id", title: "Id", value: (operation) => operation.id, hidden: true, width: 300 },
];
