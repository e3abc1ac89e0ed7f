/** Instances that nodes hold and the database does not know, after it went back to an older copy. */
import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery } from "./lists.ts";

export type FoundInstance = Schemas["FoundInstance"];

export const foundQuery = () =>
  listQuery<FoundInstance>("instances", { found: true }, (page, signal) =>
    body(api.GET("/v1/found-instances", { params: { query: page }, signal })),
  );

export function useFound() {
  return useQuery(foundQuery());
}

const at = (found: FoundInstance) => ({ params: { path: { instance: found.id } } });

/** Makes it an instance again. Empty names mean those that it had. */
export function useTakeFound() {
  return useMutation({
    mutationFn: ({ found, deployment, project }: { found: FoundInstance; deployment: string; project: string }) =>
      body(
        api.POST("/v1/found-instances/{instance}/take", {
          ...at(found),
          body: { ...(deployment === "" ? {} : { deployment }), ...(project === "" ? {} : { project }) },
        }),
      ),
  });
}

/** Gives it up: its node cuts its power and deletes its disks. */
export function useForgetFound() {
  return useMutation({
    mutationFn: (found: FoundInstance) =>
      body(api.POST("/v1/found-instances/{instance}/forget", { ...at(found), body: { confirm: true } })),
  });
}
