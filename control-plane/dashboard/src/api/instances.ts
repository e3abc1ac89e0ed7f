import { queryOptions, useMutation, useQuery } from "@tanstack/react-query";
import { ApiError, api, body, oneOf, type Schemas } from "./client.ts";
import { type Loaded, listQuery, oneQuery, showChanged } from "./lists.ts";
import type { Operation } from "./operations.ts";
import { currentScope } from "./scope.ts";

export type Instance = Schemas["Instance"];
export type InstanceState = Schemas["InstanceState"];
export type Disk = Schemas["InstanceDisk"];
export type Loss = Schemas["Loss"];
export type MusterEvent = Schemas["Event"];

export interface InstanceFilters {
  state?: string[];
  deployment?: string[];
  node?: string[];
}

export const instancesQuery = (filters: InstanceFilters = {}) =>
  listQuery<Instance>("instances", { ...filters }, (page, signal) =>
    body(
      api.GET("/v1/instances", {
        params: {
          query: {
            ...page,
            state: oneOf<InstanceState>(filters.state ?? []),
            deployment: oneOf(filters.deployment ?? []),
            node: oneOf(filters.node ?? []),
          },
        },
        signal,
      }),
    ),
  );

export function useInstances(filters: InstanceFilters = {}) {
  return useQuery(instancesQuery(filters));
}

export const instanceQuery = (id: string) =>
  oneQuery<Instance>("instances", id, (signal) =>
    body(api.GET("/v1/instances/{instance}", { params: { path: { instance: id } }, signal })),
  );

export function useInstance(id: string) {
  return useQuery(instanceQuery(id));
}

/** The operations on an instance that go on. */
export function useOperationsOn(instance: Instance) {
  return useQuery(
    listQuery<Operation>("operations", { target: [instance.id], going: true }, (page, signal) =>
      body(
        api.GET("/v1/operations", {
          params: {
            query: {
              ...page,
              target: [instance.id],
              state: ["pending", "running", "cancelling"],
              project: instance.project,
            },
          },
          signal,
        }),
      ),
    ),
  );
}

export type Verb = "start" | "stop" | "reboot" | "recover" | "delete";

export interface HowToAct {
  /** For stop and reboot: cut the power at once. */
  force?: boolean;
  /** For stop and reboot: how long the guest may take. */
  timeout_s?: number;
  /** For recover: give up what was written after the last saved versions. */
  accept_loss?: boolean;
}

/** Acts on instances of one project by one call, however many they are. */
export async function actOn(verb: Verb, instances: readonly Instance[], how: HowToAct = {}): Promise<object> {
  const [first] = instances;
  if (first === undefined) throw new Error("no instance is chosen");
  const query = { project: first.project };
  if (instances.length > 1) {
    const many = { params: { query }, body: { select: { instances: instances.map(({ id }) => id) }, ...how } };
    switch (verb) {
      case "start":
        return body(api.POST("/v1/instances/-/start", many));
      case "stop":
        return body(api.POST("/v1/instances/-/stop", many));
      case "reboot":
        return body(api.POST("/v1/instances/-/reboot", many));
      case "recover":
        return body(api.POST("/v1/instances/-/recover", many));
      case "delete":
        return body(api.POST("/v1/instances/-/delete", many));
    }
  }
  const params = { path: { instance: first.id }, query };
  switch (verb) {
    case "start":
      return body(api.POST("/v1/instances/{instance}/start", { params }));
    case "stop":
      return body(api.POST("/v1/instances/{instance}/stop", { params, body: how }));
    case "reboot":
      return body(api.POST("/v1/instances/{instance}/reboot", { params, body: how }));
    case "recover":
      return body(api.POST("/v1/instances/{instance}/recover", { params, body: how }));
    case "delete":
      return body(api.DELETE("/v1/instances/{instance}", { params }));
  }
}

/** What would be free if an instance were deleted; null if that is not known. */
export function useFreedBytes(instance: Instance, enabled: boolean) {
  return useQuery({
    ...oneQuery<number | null>(
      "instances",
      instance.id,
      async (signal) => {
        const answer = await body(
          api.DELETE("/v1/instances/{instance}", {
            params: { path: { instance: instance.id }, query: { project: instance.project, dry_run: true } },
            signal,
          }),
        );
        return "freed_bytes" in answer ? answer.freed_bytes : null;
      },
      "freed",
    ),
    enabled,
    // What others share with it changes without an event of this instance.
    staleTime: 0,
  });
}

/** Changes labels as a merge patch: null takes a label away. */
export function usePatchInstance(instance: Instance) {
  return useMutation({
    mutationFn: (labels: Record<string, string | null>) =>
      body(
        api.PATCH("/v1/instances/{instance}", {
          params: { path: { instance: instance.id }, query: { project: instance.project } },
          body: { labels },
        }),
      ),
    onSuccess: (changed, _, __, { client }) => showChanged(client, "instances", instance, changed),
  });
}

interface History extends Loaded<MusterEvent> {
  /** Where to go on. */
  token?: string;
}

/** The events of an instance that are kept, oldest first. After the first time only what is new is read. */
export const instanceEventsQuery = (instance: Instance) =>
  queryOptions({
    queryKey: ["events", "list", currentScope(), { target: [instance.id] }] as const,
    queryFn: async ({ client, queryKey, signal }): Promise<History> => {
      const before = client.getQueryData<History>(queryKey);
      try {
        return await readHistory(instance, before, signal);
      } catch (error) {
        // The event that was read last is no longer kept, so it is read from the beginning.
        if (before === undefined || !(error instanceof ApiError) || error.status !== 400) throw error;
        return readHistory(instance, undefined, signal);
      }
    },
  });

async function readHistory(instance: Instance, before: History | undefined, signal: AbortSignal): Promise<History> {
  const items = before?.items.slice() ?? [];
  let token = before?.token;
  for (;;) {
    const query = {
      limit: 1000,
      target: [instance.id],
      project: instance.project,
      ...(token === undefined ? {} : { page_token: token }),
    };
    // The address has two forms of answers; this one is asked for by its type.
    const page = (await body(
      api.GET("/v1/events", { params: { query }, headers: { Accept: "application/json" }, signal }),
    )) as unknown as Schemas["Page_Event"];
    items.push(...page.items);
    const next = page.next_page_token ?? undefined;
    if (next === undefined) return { items, complete: true, token: page.as_of };
    token = next;
  }
}

/** The end of what an instance printed on its console. */
export function readConsole(instance: Instance, tail: string, signal: AbortSignal): Promise<string> {
  return body(
    api.GET("/v1/instances/{instance}/log", {
      params: { path: { instance: instance.id }, query: { project: instance.project, tail } },
      parseAs: "text",
      signal,
    }),
  );
}

/** Console output as it comes, until the reading is ended. Null if the controller cannot do that yet. */
export async function followConsole(
  instance: Instance,
  tail: string,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array> | null> {
  try {
    const { data } = await api.GET("/v1/instances/{instance}/log", {
      params: {
        path: { instance: instance.id },
        query: { project: instance.project, tail, follow: "true" } as { project: string; tail: string },
      },
      parseAs: "stream",
      signal,
    });
    return data ?? null;
  } catch (error) {
    if (error instanceof ApiError && error.status === 400) return null;
    throw error;
  }
}

/** The address of what an instance printed, to be saved as a file. */
export function consoleAddress(instance: Instance): string {
  return `/v1/instances/${instance.id}/log?tail=16MiB&project=${encodeURIComponent(instance.project)}`;
}
