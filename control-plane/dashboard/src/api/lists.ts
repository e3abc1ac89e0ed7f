/**
 * Queries: whole lists, and single things. Keys have a fixed shape, because the live stream finds by it what an event
 * makes stale (see live/): `[noun, "list", project, filters]` and `[noun, "one", id or name, project, part?]`.
 */
import { type QueryClient, type QueryFunctionContext, queryOptions } from "@tanstack/react-query";
import { ApiError } from "./client.ts";
import { currentScope, thingScope } from "./scope.ts";

/** The nouns of keys: the plural words of the API's paths. */
export type Noun =
  | "deployments"
  | "disks"
  | "events"
  | "images"
  | "instances"
  | "networks"
  | "nodes"
  | "operations"
  | "pools"
  | "projects"
  | "security-groups"
  | "sessions"
  | "snapshots"
  | "summary"
  | "tokens"
  | "versions";

/** A page of a list, as every list of the API answers. */
export interface Paged<T> {
  items: T[];
  next_page_token?: string | null;
}

/** A list as far as it is loaded. */
export interface Loaded<T> {
  items: T[];
  /** False while further pages are on their way for the first time. */
  complete: boolean;
}

/** The most items the API puts on one page. */
const pageSize = 1000;

/**
 * A query for a whole list. The pages are loaded one after the other. The first time they are shown as they come; later
 * the old list stays until the new one is complete.
 */
export function listQuery<T>(
  noun: Noun,
  filters: Record<string, unknown>,
  page: (query: { limit: number; page_token?: string }, signal: AbortSignal) => Promise<Paged<T>>,
) {
  return queryOptions({
    queryKey: [noun, "list", currentScope(), filters] as const,
    queryFn: async ({ client, queryKey, signal }: QueryFunctionContext): Promise<Loaded<T>> => {
      const before = client.getQueryData<Loaded<T>>(queryKey);
      const items: T[] = [];
      let token: string | undefined;
      for (;;) {
        const got = await page({ limit: pageSize, ...(token === undefined ? {} : { page_token: token }) }, signal);
        for (const item of got.items) items.push(item);
        token = got.next_page_token ?? undefined;
        if (token === undefined) return { items, complete: true };
        if (before?.complete !== true) client.setQueryData(queryKey, { items: items.slice(), complete: false });
      }
    },
  });
}

/** A query for one thing, or for a part of it such as its log. */
export function oneQuery<T>(noun: Noun, id: string, load: (signal: AbortSignal) => Promise<T>, part?: string) {
  return queryOptions({
    queryKey: [noun, "one", id, thingScope() ?? "", part ?? ""] as const,
    queryFn: ({ signal }) => load(signal),
  });
}

/** Shows at once how a change left a thing. `before` is the thing as pages know it, which may have had another name. */
export function showChanged<T>(
  client: QueryClient,
  noun: Noun,
  before: { id: string; name: string },
  changed: T,
): void {
  // Parts of a thing, such as its log, are left alone.
  const isWhole = ({ queryKey }: { queryKey: readonly unknown[] }) => queryKey[4] === "";
  for (const id of [before.id, before.name]) {
    client.setQueriesData<T>({ queryKey: [noun, "one", id], predicate: isWhole }, changed);
  }
}

/** After a change that came too late (`If-Match`): reads what the others made of it, which pages have not heard of yet. */
export async function readAgain(client: QueryClient, noun: Noun, error: unknown): Promise<void> {
  if (error instanceof ApiError && error.status === 412) await client.invalidateQueries({ queryKey: [noun] });
}
