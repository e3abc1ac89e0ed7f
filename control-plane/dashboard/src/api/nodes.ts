import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery, oneQuery } from "./lists.ts";
import type { Operation } from "./operations.ts";

export type Node = Schemas["Node"];
export type Scrub = Schemas["Scrub"];
export type ScrubRound = Schemas["ScrubRound"];
export type Drain = Schemas["Drain"];
export type Condition = Schemas["Condition"];
export type Salvage = Schemas["Salvage"];

/** Heartbeats are no events: when a node was last seen and what it uses would grow old. */
const refreshMs = 15_000;

export const nodesQuery = () =>
  listQuery<Node>("nodes", {}, (page, signal) => body(api.GET("/v1/nodes", { params: { query: page }, signal })));

export function useNodes() {
  return useQuery({ ...nodesQuery(), refetchInterval: refreshMs });
}

export function useNode(id: string) {
  return useQuery({
    ...oneQuery<Node>("nodes", id, (signal) =>
      body(api.GET("/v1/nodes/{node}", { params: { path: { node: id } }, signal })),
    ),
    refetchInterval: refreshMs,
  });
}

/** The disks that were on a node when it was declared dead. */
export function useSalvage(node: string, enabled: boolean) {
  return useQuery({
    ...listQuery<Salvage>("nodes", { salvage: node }, (page, signal) =>
      body(api.GET("/v1/nodes/{node}/salvage", { params: { path: { node }, query: page }, signal })),
    ),
    enabled,
  });
}

const at = (node: Node) => ({ params: { path: { node: node.id } } });

/** Lets new instances be placed on a node, or keeps them away. */
export function useSetSchedulable() {
  return useMutation({
    mutationFn: ({ node, schedulable }: { node: Node; schedulable: boolean }) =>
      body(
        schedulable ? api.POST("/v1/nodes/{node}/uncordon", at(node)) : api.POST("/v1/nodes/{node}/cordon", at(node)),
      ),
  });
}

/** Declares a node dead, which cannot be taken back. */
export function useFence() {
  return useMutation({
    mutationFn: (node: Node) => body(api.POST("/v1/nodes/{node}/fence", { ...at(node), body: { confirm: true } })),
  });
}

/** Gives what a node has to other nodes. Its instances stay. */
export function useDrain() {
  return useMutation({
    mutationFn: (node: Node) => body(api.POST("/v1/nodes/{node}/drain", { ...at(node), body: {} })),
  });
}

/** Takes a node out. Where it has objects, the answer is the operation that drains it before. */
export function useRemoveNode() {
  return useMutation({
    mutationFn: async (node: Node): Promise<Operation | undefined> => {
      const { data } = await api.DELETE("/v1/nodes/{node}", at(node));
      return data as Operation | undefined;
    },
  });
}

/** Takes note of lost objects, if they are still those that the caller saw. */
export function useAcknowledge() {
  return useMutation({
    mutationFn: (node: Node) =>
      body(
        api.POST("/v1/nodes/{node}/acknowledge", {
          ...at(node),
          body: { objects: node.pool.lost_objects, bytes: node.pool.lost_bytes },
        }),
      ),
  });
}

/** Waits no longer for the disks of a dead node. */
export function useGiveUpSalvage() {
  return useMutation({ mutationFn: (node: Node) => body(api.POST("/v1/nodes/{node}/give-up-salvage", at(node))) });
}

/** A token with which new nodes join. Its text is in this answer only. */
export function useNodeToken() {
  return useMutation({
    mutationFn: ({ uses, ttlS }: { uses: number; ttlS: number }) =>
      body(api.POST("/v1/tokens", { body: { role: "node", uses, ttl_s: ttlS } })),
  });
}
