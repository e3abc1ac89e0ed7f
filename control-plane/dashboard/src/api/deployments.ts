import { queryOptions, useMutation, useQuery } from "@tanstack/react-query";
import { ApiError, api, body, type Schemas } from "./client.ts";
import { type Loaded, listQuery, oneQuery, showChanged } from "./lists.ts";
import { type Operation, operationsQuery } from "./operations.ts";
import { currentScope } from "./scope.ts";

export type Deployment = Schemas["Deployment"];
export type Protect = Schemas["Protect"];
export type Keep = Schemas["Keep"];
export type Protection = Schemas["Protection"];
export type CreateDeployment = Schemas["CreateDeployment"];
export type DryRun = Schemas["DryRun"];
export type MusterEvent = Schemas["Event"];

/** What a change that may take time answers: the operation, or the thing where nothing had to be done. */
export type Changed = Operation | Deployment;

export const deploymentsQuery = () =>
  listQuery<Deployment>("deployments", {}, (page, signal) =>
    body(api.GET("/v1/deployments", { params: { query: page }, signal })),
  );

export function useDeployments() {
  return useQuery(deploymentsQuery());
}

export function useDeployment(id: string) {
  return useQuery(
    oneQuery<Deployment>("deployments", id, (signal) =>
      body(api.GET("/v1/deployments/{deployment}", { params: { path: { deployment: id } }, signal })),
    ),
  );
}

/** The user data of a deployment. It may be secret, so it is not kept once nobody looks at it. */
export function useUserData(deployment: Deployment, enabled: boolean) {
  return useQuery({
    ...oneQuery<string>(
      "deployments",
      deployment.id,
      (signal) =>
        body(api.GET("/v1/deployments/{deployment}/user-data", { ...at(deployment), parseAs: "text", signal })),
      "user-data",
    ),
    enabled,
    gcTime: 0,
  });
}

/** What goes on with a deployment now: operations on it that have not ended. */
export function useOperationsUnderWay(deployment: Deployment) {
  return useQuery(operationsQuery({ deployment: [deployment.id], state: ["pending", "running", "cancelling"] }));
}

/** How many events of a deployment are kept on its page. */
export const eventsKept = 5000;

/** The newest events of a deployment and its members, oldest first. Only what is new is read again. */
export const deploymentEventsQuery = (deployment: Deployment) =>
  queryOptions({
    queryKey: ["events", "list", currentScope(), { deployment: [deployment.id] }] as const,
    queryFn: async ({ client, queryKey, signal }): Promise<Loaded<MusterEvent>> => {
      const before = client.getQueryData<Loaded<MusterEvent>>(queryKey)?.items ?? [];
      try {
        return await eventsAfter(deployment, before, signal);
      } catch (error) {
        // The last event that was read is no longer kept, so the list begins anew.
        if (before.length === 0 || !(error instanceof ApiError) || error.code !== "bad_request") throw error;
        return eventsAfter(deployment, [], signal);
      }
    },
  });

async function eventsAfter(deployment: Deployment, before: MusterEvent[], signal: AbortSignal) {
  const items = before.slice();
  let token: string | undefined;
  do {
    const query = {
      limit: 1000,
      deployment: [deployment.id],
      project: deployment.project,
      ...(token === undefined ? {} : { page_token: token }),
      ...(items.length === 0 || token !== undefined ? {} : { after: items[items.length - 1]?.id }),
    };
    const page = (await body(
      api.GET("/v1/events", { params: { query }, headers: { Accept: "application/json" }, signal }),
    )) as unknown as { items: MusterEvent[]; next_page_token?: string | null };
    items.push(...page.items);
    token = page.next_page_token ?? undefined;
  } while (token !== undefined);
  return { items: items.slice(-eventsKept), complete: true };
}

/** What deleting a deployment would free. */
export function useFreedBy(deployment: Deployment, enabled: boolean) {
  return useQuery({
    ...oneQuery<number | null>(
      "deployments",
      deployment.id,
      async (signal) => {
        const answer = await body(
          api.DELETE("/v1/deployments/{deployment}", {
            params: {
              path: { deployment: deployment.id },
              query: { dry_run: true, project: deployment.project },
            },
            signal,
          }),
        );
        return "freed_bytes" in answer ? answer.freed_bytes : null;
      },
      "freed",
    ),
    enabled,
    // Other deployments share its bytes, and no event tells of that.
    staleTime: 0,
  });
}

/** Verbs that act on all members of a deployment. */
export type PowerVerb = "start" | "stop" | "reboot";

/** How members are stopped: at once, or after they were asked to turn themselves off. */
export interface StopHow {
  force?: boolean;
}

const at = (deployment: Deployment) => ({
  params: { path: { deployment: deployment.id }, query: { project: deployment.project } },
});

export function usePower() {
  return useMutation({
    mutationFn: ({ deployment, verb, how = {} }: { deployment: Deployment; verb: PowerVerb; how?: StopHow }) => {
      switch (verb) {
        case "start":
          return body<Changed>(api.POST("/v1/deployments/{deployment}/start", at(deployment)));
        case "stop":
          return body<Changed>(api.POST("/v1/deployments/{deployment}/stop", { ...at(deployment), body: how }));
        case "reboot":
          return body<Changed>(api.POST("/v1/deployments/{deployment}/reboot", { ...at(deployment), body: how }));
      }
    },
  });
}

export function useScale() {
  return useMutation({
    mutationFn: ({ deployment, count }: { deployment: Deployment; count: number }) =>
      body<Changed>(api.POST("/v1/deployments/{deployment}/scale", { ...at(deployment), body: { count } })),
  });
}

export function useRetry() {
  return useMutation({
    mutationFn: ({ deployment, readyTimeoutS }: { deployment: Deployment; readyTimeoutS?: number }) =>
      body<Changed>(
        api.POST("/v1/deployments/{deployment}/retry", {
          ...at(deployment),
          body: readyTimeoutS === undefined ? {} : { ready_timeout_s: readyTimeoutS },
        }),
      ),
  });
}

export function useDeleteDeployment() {
  return useMutation({
    mutationFn: (deployment: Deployment) =>
      body(api.DELETE("/v1/deployments/{deployment}", at(deployment))) as Promise<Operation>,
  });
}

/** Changes labels as a merge patch: null takes a label away. */
export function usePatchLabels() {
  return useMutation({
    mutationFn: ({ deployment, labels }: { deployment: Deployment; labels: Record<string, string | null> }) =>
      body(api.PATCH("/v1/deployments/{deployment}", { ...at(deployment), body: { labels } })),
    onSuccess: (changed, { deployment }, _result, { client }) =>
      showChanged(client, "deployments", deployment, changed),
  });
}

/** Changes how members are saved by themselves, as a merge patch; null ends it. */
export function usePatchProtect() {
  return useMutation({
    mutationFn: ({ deployment, protect }: { deployment: Deployment; protect: Record<string, unknown> | null }) =>
      body(
        api.PATCH("/v1/deployments/{deployment}", {
          ...at(deployment),
          body: { protect } as Schemas["PatchDeployment"],
        }),
      ),
    onSuccess: (changed, { deployment }, _result, { client }) =>
      showChanged(client, "deployments", deployment, changed),
  });
}

/** Where the members of a deployment would go, if it were made now. It is asked again when other deployments change. */
export const dryRunQuery = (project: string | undefined, request: CreateDeployment) =>
  queryOptions({
    queryKey: ["deployments", "dry-run", project ?? "", request] as const,
    queryFn: ({ signal }) =>
      body(
        api.POST("/v1/deployments", {
          params: { query: project === undefined ? {} : { project } },
          body: { ...request, dry_run: true },
          signal,
        }),
      ) as Promise<DryRun>,
    staleTime: 0,
    gcTime: 60_000,
    retry: false,
    // What nodes can take changes while the form is open, and tenants are told of no node.
    refetchInterval: 10_000,
  });

export function useCreateDeployment() {
  return useMutation({
    mutationFn: ({ project, request }: { project: string | undefined; request: CreateDeployment }) =>
      body(
        api.POST("/v1/deployments", {
          params: { query: project === undefined ? {} : { project } },
          body: request,
        }),
      ) as Promise<Operation>,
  });
}
