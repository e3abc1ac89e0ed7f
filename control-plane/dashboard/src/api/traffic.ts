/** How many bytes the nodes moved in the last hour. A controller that does not know it answers 404. */
import { queryOptions, useQuery } from "@tanstack/react-query";
import { ApiError, api } from "./client.ts";

/** Bytes per step; null where a step is not known. */
export type Steps = (number | null)[];

export interface Traffic {
  step_s: number;
  from: string;
  to: string;
  nodes: number;
  series: {
    fetched_bytes: Steps;
    served_bytes: Steps;
    written_bytes: Steps;
    read_bytes: Steps;
  };
}

/** The bytes that one node exchanged with another in the last 10 minutes. */
export interface NodeLink {
  node: string;
  node_name: string;
  fetched_bytes: number;
  served_bytes: number;
}

const refreshMs = 10_000;

/** Null where the controller does not offer it. */
export async function ifOffered<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.status === 405 || error.status === 501))
      return null;
    throw error;
  }
}

const read = <T>(path: string, query: Record<string, unknown>, signal: AbortSignal) =>
  api.GET(path as never, { params: { query }, signal } as never) as Promise<{ data?: T }>;

export const trafficQuery = (node?: string) =>
  queryOptions({
    queryKey: ["traffic", node ?? ""] as const,
    queryFn: ({ signal }) =>
      ifOffered(
        read<Traffic>("/v1/traffic", { minutes: 60, ...(node === undefined ? {} : { node }) }, signal).then(
          ({ data }) => data ?? null,
        ),
      ),
    refetchInterval: (query) => (query.state.data === null ? false : refreshMs),
  });

/** The traffic of the whole cluster, or of one node. Null where the controller does not offer it. */
export function useTraffic(node?: string) {
  return useQuery(trafficQuery(node));
}

export function useNodeLinks(node: string) {
  return useQuery({
    queryKey: ["links", node] as const,
    queryFn: ({ signal }) =>
      ifOffered(
        read<{ items: NodeLink[] }>(`/v1/nodes/${encodeURIComponent(node)}/links`, {}, signal).then(
          ({ data }) => data?.items ?? null,
        ),
      ),
    refetchInterval: (query) => (query.state.data === null ? false : refreshMs),
  });
}
