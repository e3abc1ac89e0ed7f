import { Drawer, Stack, Text } from "@mantine/core";
import { useMemo } from "react";
import { mostEvents, useEventLog } from "../../api/event-log.ts";
import type { MusterEvent } from "../../live/feed.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { count } from "../../ui/format.ts";
import { Page } from "../../ui/Page.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { columns } from "./columns.tsx";
import { EventDetail } from "./EventDetail.tsx";

const facets: readonly Facet[] = [
  { key: "kind", title: "Kind" },
  { key: "state", title: "State" },
  { key: "actor", title: "By" },
];
const idOf = (event: MusterEvent) => event.id;

/** Everything that happened, as it happens. */
export default function EventList() {
  const log = useEventLog();
  const [{ event: shown }, setSearch] = useSearchState({ event: "" });
  const rows = useMemo(() => log.data?.items.toReversed(), [log.data]);
  const detail = rows?.find(({ id }) => id === shown);
  return (
    <Page title="Events" subtitle={subtitle(log.data)}>
      <ThingsTable
        name="events"
        rows={rows}
        complete={log.data?.complete ?? false}
        error={log.error}
        onRetry={() => void log.refetch()}
        rowId={idOf}
        columns={columns}
        facets={facets}
        link={(event) => ({ to: ".", search: ((before: object) => ({ ...before, event: event.id })) as never })}
        empty={
          <EmptyState title="Nothing has happened yet" cli="muster event follow">
            Deployments, instances, snapshots and nodes leave an event here with every change. They are kept for 7 days.
          </EmptyState>
        }
      />
      <Drawer
        opened={shown !== ""}
        onClose={() => setSearch({ event: "" })}
        position="right"
        size="md"
        title="Event"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        {detail === undefined ? (
          <Text size="sm">This event is not among those that are loaded. Events are kept for 7 days.</Text>
        ) : (
          <Stack>
            <EventDetail event={detail} />
          </Stack>
        )}
      </Drawer>
    </Page>
  );
}

function subtitle(log: { read: number; complete: boolean } | undefined): string {
  if (log === undefined) return "What happened in the last 7 days";
  if (!log.complete) return `Reading the events of the last 7 days: ${count(log.read)} so far`;
  if (log.read > mostEvents) return `The newest ${count(mostEvents)} of the last 7 days; new ones come by themselves`;
  return "What happened in the last 7 days; new events come by themselves";
}
