import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Deployment, deploymentEventsQuery, eventsKept, type MusterEvent } from "../../api/deployments.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { count } from "../../ui/format.ts";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";

const textOf = (event: MusterEvent, field: string) => {
  const value = (event.data as Record<string, unknown>)[field];
  return value === undefined || value === null ? "" : String(value);
};

/** What else an event says, as `field value` pairs. */
function restOf(event: MusterEvent): string {
  return Object.entries(event.data as Record<string, unknown>)
    .filter(([field, value]) => field !== "state" && field !== "reason" && value !== null)
    .map(
      ([field, value]) => `${field.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`,
    )
    .join(", ");
}

const columns: readonly Column<MusterEvent>[] = [
  {
    key: "time",
    title: "When",
    value: ({ time }) => time,
    cell: ({ time }) => <TimeAgo time={time} />,
    width: 100,
  },
  { key: "kind", title: "Event", value: ({ kind }) => kind, width: 160, from: "sm" },
  {
    key: "target",
    title: "Of",
    value: ({ target }) => target.name,
    cell: ({ target, project }) => <ThingLink {...target} project={project} />,
  },
  {
    key: "state",
    title: "State",
    value: (event) => textOf(event, "state"),
    cell: (event) =>
      textOf(event, "state") === "" ? (
        "–"
      ) : (
        <StateBadge
          state={textOf(event, "state")}
          kind={event.kind.startsWith("operation.") ? "operation" : undefined}
          reason={textOf(event, "reason") || null}
        />
      ),
    width: 200,
  },
  { key: "more", title: "More", value: restOf, from: "md" },
  { key: "actor", title: "By", value: ({ actor }) => actor, width: 130, from: "sm" },
  { key: "id", title: "Id", value: ({ id }) => id, hidden: true, width: 340 },
];

const facets: readonly Facet[] = [{ key: "kind", title: "Event" }];
const idOf = (event: MusterEvent) => event.id;

/** What happened to a deployment and its members. */
export function EventsTab({ deployment }: { deployment: Deployment }) {
  const events = useQuery(deploymentEventsQuery(deployment));
  return (
    <>
      <ThingsTable
        name="events"
        prefix="e_"
        rows={events.data?.items}
        complete={events.data?.complete ?? false}
        error={events.error}
        onRetry={() => void events.refetch()}
        rowId={idOf}
        columns={columns}
        facets={facets}
        sort="-time"
        empty={
          <EmptyState title="No event is kept">
            Events are kept for seven days. This deployment had none in that time.
          </EmptyState>
        }
      />
      {events.data?.items.length === eventsKept && (
        <Text size="xs" c="dimmed" mt="xs">
          The newest {count(eventsKept)} events are shown.
        </Text>
      )}
    </>
  );
}
