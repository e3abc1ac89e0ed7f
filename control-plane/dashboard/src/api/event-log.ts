/**
 * The log of events, newest first. The API gives events oldest first, so all pages that are kept are read once, of which
 * the newest stay; from then on the live stream adds to them. The key is not that of a list, because it must not be read
 * again with each event.
 */
import { queryOptions, useQuery } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import type { MusterEvent } from "../live/feed.ts";
import { onLiveEvent } from "../live/live.ts";
import { api, body } from "./client.ts";
import type { Loaded, Paged } from "./lists.ts";
import { allProjects, currentScope } from "./scope.ts";

/** How many events are kept to look at. */
export const mostEvents = 5_000;
/** Events that come in a burst are drawn together. */
const gatherMs = 200;

export interface EventLog extends Loaded<MusterEvent> {
  /** How many were read; more than are kept, perhaps. */
  read: number;
}

const eventLogQuery = () =>
  queryOptions({
    queryKey: ["event-log", currentScope()] as const,
    queryFn: async ({ client, queryKey, signal }): Promise<EventLog> => {
      const before = client.getQueryData<EventLog>(queryKey);
      let items: MusterEvent[] = [];
      let read = 0;
      let token: string | undefined;
      for (;;) {
        const query = { limit: 1000, ...(token === undefined ? {} : { page_token: token }) };
        const page = (await body(
          api.GET("/v1/events", { params: { query }, headers: { Accept: "application/json" }, signal }),
        )) as unknown as Paged<MusterEvent>;
        read += page.items.length;
        items = keepNewest(items, page.items, mostEvents);
        token = page.next_page_token ?? undefined;
        if (token === undefined) return { items, read, complete: true };
        if (before?.complete !== true) client.setQueryData(queryKey, { items, read, complete: false });
      }
    },
  });

/** Adds events at the end and lets the oldest go; what is there already is not added again. */
export function keepNewest(events: readonly MusterEvent[], added: readonly MusterEvent[], most: number): MusterEvent[] {
  const known = new Set(events.map(({ id }) => id));
  return [...events, ...added.filter(({ id }) => !known.has(id))].slice(-most);
}

/** The log of events, kept up to date by the stream. */
export function useEventLog() {
  const log = useQuery(eventLogQuery());
  const [live, setLive] = useState<MusterEvent[]>([]);
  const scope = currentScope();
  useEffect(() => {
    let waiting: MusterEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = onLiveEvent((event) => {
      if (scope !== "" && scope !== allProjects && event.project !== scope) return;
      waiting.push(event);
      timer ??= setTimeout(() => {
        timer = undefined;
        const added = waiting;
        waiting = [];
        setLive((before) => keepNewest(before, added, mostEvents));
      }, gatherMs);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [scope]);
  const data = useMemo(
    () => (log.data === undefined ? undefined : { ...log.data, items: keepNewest(log.data.items, live, mostEvents) }),
    [log.data, live],
  );
  return { data, error: log.error, refetch: log.refetch };
}
