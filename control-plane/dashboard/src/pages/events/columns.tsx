import type { MusterEvent } from "../../live/feed.ts";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { toneOf } from "../../ui/states.ts";
import { ThingIcon } from "../../ui/ThingIcon.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import classes from "./columns.module.css";
import { whatOf } from "./what.ts";

/** The state that an event tells of, if it does. */
export function stateOf(event: MusterEvent): string | undefined {
  const state = (event.data as { state?: unknown } | undefined)?.state;
  return typeof state === "string" ? state : undefined;
}

function What({ event }: { event: MusterEvent }) {
  const state = stateOf(event);
  return (
    <span className={classes.line}>
      {state !== undefined && <ToneIcon tone={toneOf(state, event.kind.startsWith("operation.") ? "operation" : "")} />}
      <span className={classes.text}>{whatOf(event)}</span>
    </span>
  );
}

export const columns: readonly Column<MusterEvent>[] = [
  {
    key: "time",
    title: "When",
    value: (event) => event.time,
    cell: (event) => <TimeAgo time={event.time} />,
    width: 96,
  },
  {
    key: "target",
    title: "Target",
    value: (event) => event.target.name,
    cell: (event) => (
      <span className={classes.line}>
        <ThingIcon kind={event.target.kind} />
        <span className={classes.text}>
          <ThingLink {...event.target} project={event.project} />
        </span>
      </span>
    ),
  },
  { key: "what", title: "What", value: whatOf, cell: (event) => <What event={event} /> },
  { key: "kind", title: "Kind", value: (event) => event.kind, width: 160, from: "md" },
  { key: "actor", title: "By", value: (event) => event.actor, width: 150, from: "md" },
  {
    key: "operation",
    title: "Operation",
    value: (event) => event.operation,
    cell: (event) =>
      event.operation === undefined ? (
        "–"
      ) : (
        <ThingLink
          kind="operation"
          id={event.operation}
          name={`…${event.operation.slice(-8)}`}
          project={event.project}
        />
      ),
    width: 110,
    from: "lg",
  },
  { key: "project", title: "Project", value: (event) => event.project, width: 120, from: "xl" },
  { key: "state", title: "State", value: stateOf, width: 110, hidden: true },
];
