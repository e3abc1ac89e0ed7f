import { queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";

export type Me = Schemas["Me"];

/** Who is signed in. The frame waits for it, so pages can rely on it. */
export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: ({ signal }) => body(api.GET("/v1/me", { signal })),
  staleTime: Number.POSITIVE_INFINITY,
  gcTime: Number.POSITIVE_INFINITY,
});

/** Who is signed in. Call it only below the frame. */
export function useMe(): Me {
  return useSuspenseQuery(meQuery).data;
}

/** Whether the one who is signed in operates the cluster: only then there are nodes, the pool and all projects. */
export function useIsOperator(): boolean {
  return useMe().role === "admin";
}
