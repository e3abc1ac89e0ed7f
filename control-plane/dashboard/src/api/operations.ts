import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, oneOf, type Schemas } from "./client.ts";
import { listQuery, oneQuery } from "./lists.ts";

export type Operation = Schemas["Operation"];
export type OperationState = Schemas["OperationState"];

export interface OperationFilters {
  state?: string[];
  deployment?: string[];
  node?: string[];
}

export const operationsQuery = (filters: OperationFilters = {}) =>
  listQuery<Operation>("operations", { ...filters }, (page, signal) =>
    body(
      api.GET("/v1/operations", {
        params: {
          query: {
            ...page,
            state: oneOf<OperationState>(filters.state ?? []),
            deployment: oneOf(filters.deployment ?? []),
            node: oneOf(filters.node ?? []),
          },
        },
        signal,
      }),
    ),
  );

export const operationQuery = (id: string, project?: string) =>
  oneQuery<Operation>("operations", id, (signal) =>
    body(
      api.GET("/v1/operations/{operation}", {
        params: { path: { operation: id }, query: project === undefined ? {} : { project } },
        signal,
      }),
    ),
  );

/** The log of slow work, oldest first, as far as it is loaded. */
export function useOperations(filters: OperationFilters = {}) {
  return useQuery(operationsQuery(filters));
}

export function useOperation(id: string) {
  return useQuery(operationQuery(id));
}

/** Asks an operation to end early. What it has done stays done. */
export function useCancelOperation() {
  return useMutation({
    mutationFn: (operation: Operation) =>
      body(
        api.POST("/v1/operations/{operation}/cancel", {
          params: { path: { operation: operation.id }, query: { project: operation.project } },
        }),
      ),
  });
}

/** Whether an operation still goes on. */
export function isUnderWay(operation: Operation): boolean {
  return operation.state === "pending" || operation.state === "running" || operation.state === "cancelling";
}
