/** The pool: what all nodes hold together, its sweep and its repair. For operators; there is one. */
import { useMutation, useQuery } from "@tanstack/react-query";
import { ApiError, api, body, type Schemas } from "./client.ts";
import { oneQuery, showChanged } from "./lists.ts";

export type PoolRepair = Schemas["PoolRepair"];
export type Pool = Schemas["Pool"];
export type PoolRepository = Schemas["PoolRepository"];
export type LostVersion = Schemas["LostVersion"];
export type Sweep = Schemas["Sweep"];

/** The name of the only pool. */
export const defaultPool = "default";

/** Nodes tell with their heartbeats what they hold and how far they are, and heartbeats are no events. */
const refreshMs = 15_000;
/** While something goes on. */
const quickMs = 3_000;

/** What the pool holds, and how its sweep and its repair fare. */
export function usePool(enabled = true) {
  return useQuery({
    ...oneQuery<Pool>("pools", defaultPool, (signal) =>
      body(api.GET("/v1/pools/{pool}", { params: { path: { pool: defaultPool } }, signal })),
    ),
    enabled,
    refetchInterval: ({ state: { data } }) => (data !== undefined && isBusy(data) ? quickMs : refreshMs),
  });
}

const isBusy = ({ sweep, repair }: Pool) =>
  sweep.state === "marking" || sweep.state === "sweeping" || repair.bytes_per_s > 0;

/** Changes how many copies each object has. */
export function useSetCopies() {
  return useMutation({
    mutationFn: (copies: number) =>
      body(api.PATCH("/v1/pools/{pool}", { params: { path: { pool: defaultPool } }, body: { min_copies: copies } })),
    onSuccess: (pool, _copies, _result, { client }) => showChanged(client, "pools", pool, pool),
  });
}

/** Gives back now what nothing needs any more. `afterRestore` is the operator's word that allows it after a restore. */
export function useSweepPool() {
  return useMutation({
    mutationFn: (afterRestore: boolean) =>
      body(
        api.POST("/v1/pools/{pool}/sweep", {
          params: { path: { pool: defaultPool } },
          body: afterRestore ? { after_restore: true } : {},
        }),
      ),
  });
}

/** Whether the sweep was refused because the database was restored, and nobody allowed it since. */
export function needsWord(error: unknown): boolean {
  return error instanceof ApiError && error.code === "wrong_state" && error.problem.state === "restored";
}
