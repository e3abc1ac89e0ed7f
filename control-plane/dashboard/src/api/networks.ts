import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import type { Instance } from "./instances.ts";
import { listQuery, oneQuery, readAgain, showChanged } from "./lists.ts";

export type Network = Schemas["Network"];
export type NetworkMode = Schemas["NetworkMode"];
export type CreateNetwork = Schemas["CreateNetwork"];
export type PatchNetwork = Schemas["PatchNetwork"];
export type Nic = Schemas["Nic"];

/** Name of the network and of the security group that are used where nothing else is said. They are made on first use. */
export const defaultName = "default";

export const networksQuery = () =>
  listQuery<Network>("networks", {}, (page, signal) =>
    body(api.GET("/v1/networks", { params: { query: page }, signal })),
  );

export function useNetworks() {
  return useQuery(networksQuery());
}

export const networkQuery = (id: string) =>
  oneQuery<Network>("networks", id, (signal) =>
    body(api.GET("/v1/networks/{network}", { params: { path: { network: id } }, signal })),
  );

export function useNetwork(id: string) {
  return useQuery(networkQuery(id));
}

/** The instances that have a card in a network. */
export function useInstancesIn(network: Network) {
  return useQuery(
    listQuery<Instance>("instances", { network: network.id }, (page, signal) =>
      body(
        api.GET("/v1/instances", {
          params: { query: { ...page, network: [network.id], project: network.project } },
          signal,
        }),
      ),
    ),
  );
}

export function useCreateNetwork() {
  return useMutation({
    mutationFn: ({ project, request }: { project: string | undefined; request: CreateNetwork }) =>
      body(
        api.POST("/v1/networks", { params: { query: project === undefined ? {} : { project } }, body: request }),
      ) as Promise<Network>,
  });
}

const at = ({ id, project }: Network) => ({ path: { network: id }, query: { project } });

/** Changes a network. With `ifMatch`, only if it still has that etag. */
export function usePatchNetwork() {
  return useMutation({
    mutationFn: ({ network, patch, ifMatch }: { network: Network; patch: PatchNetwork; ifMatch?: string }) =>
      body(
        api.PATCH("/v1/networks/{network}", {
          params: { ...at(network), ...(ifMatch === undefined ? {} : { header: { "If-Match": ifMatch } }) },
          body: patch,
        }),
      ),
    onSuccess: (changed, { network }, _result, { client }) => showChanged(client, "networks", network, changed),
    onError: (error, _change, _result, { client }) => readAgain(client, "networks", error),
  });
}

export function useDeleteNetwork() {
  return useMutation({
    mutationFn: (network: Network) => api.DELETE("/v1/networks/{network}", { params: at(network) }),
  });
}
