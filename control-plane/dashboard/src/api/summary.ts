/** Counts by state and problems: one answer whose size does not grow with the cluster. */
import { queryOptions, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import type { Operation } from "./operations.ts";
import { currentScope } from "./scope.ts";

export type Summary = Schemas["Summary"] & {
  /** The disks of all nodes together; only for operators. */
  pool?: PoolTotals | null;
  /** The processors and memory of all nodes together; only for operators. */
  capacity?: Schemas["Capacity"] | null;
  /** The newest of the operations under way. */
  operations_running?: Operation[];
};

export interface PoolTotals {
  limit_bytes: number;
  used_bytes: number;
  free_bytes: number;
  cache_bytes: number;
}

/** Heartbeats are no events, and the use of the pool comes with them. */
const refreshMs = 15_000;

export const summaryQuery = () =>
  queryOptions({
    queryKey: ["summary", "list", currentScope(), {}] as const,
    queryFn: ({ signal }) => body(api.GET("/v1/summary", { signal })) as Promise<Summary>,
    refetchInterval: refreshMs,
  });

export function useSummary() {
  return useQuery(summaryQuery());
}
