import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, oneOf, type Schemas } from "./client.ts";
import { listQuery, oneQuery, showChanged } from "./lists.ts";

export type Snapshot = Schemas["Snapshot"];
export type SnapshotState = Schemas["SnapshotState"];
export type SnapshotMember = Schemas["SnapshotMember"];
export type CreateSnapshotBody = Schemas["CreateSnapshot"];

export interface SnapshotFilters {
  state?: string[];
  deployment?: string[];
}

export const snapshotsQuery = (filters: SnapshotFilters = {}) =>
  listQuery<Snapshot>("snapshots", { ...filters }, (page, signal) =>
    body(
      api.GET("/v1/snapshots", {
        params: {
          query: {
            ...page,
            state: oneOf<SnapshotState>(filters.state ?? []),
            deployment: oneOf(filters.deployment ?? []),
          },
        },
        signal,
      }),
    ),
  );

export function useSnapshots(filters: SnapshotFilters = {}) {
  return useQuery(snapshotsQuery(filters));
}

export function useSnapshot(id: string) {
  return useQuery(
    oneQuery<Snapshot>("snapshots", id, (signal) =>
      body(api.GET("/v1/snapshots/{snapshot}", { params: { path: { snapshot: id } }, signal })),
    ),
  );
}

/** The members of a snapshot, one row per disk. */
export function useSnapshotMembers(snapshot: Snapshot) {
  return useQuery(
    listQuery<SnapshotMember>("snapshots", { members: snapshot.id }, (page, signal) =>
      body(
        api.GET("/v1/snapshots/{snapshot}/members", {
          params: { path: { snapshot: snapshot.id }, query: { ...page, project: snapshot.project } },
          signal,
        }),
      ),
    ),
  );
}

export function useCreateSnapshot() {
  return useMutation({
    mutationFn: ({ project, request }: { project: string | undefined; request: CreateSnapshotBody }) =>
      body(
        api.POST("/v1/snapshots", {
          params: { query: project === undefined ? {} : { project } },
          body: request,
        }),
      ),
  });
}

const at = (snapshot: Snapshot) => ({
  params: { path: { snapshot: snapshot.id }, query: { project: snapshot.project } },
});

/** Changes the name, the labels as a merge patch (null takes a label away), or keeps one that was scheduled. */
export function usePatchSnapshot(snapshot: Snapshot) {
  return useMutation({
    mutationFn: (patch: Schemas["PatchSnapshot"]) =>
      body(api.PATCH("/v1/snapshots/{snapshot}", { ...at(snapshot), body: patch })),
    onSuccess: (changed, _, __, { client }) => showChanged(client, "snapshots", snapshot, changed),
  });
}

export function useDeleteSnapshot() {
  return useMutation({
    mutationFn: (snapshot: Snapshot) => body(api.DELETE("/v1/snapshots/{snapshot}", at(snapshot))),
  });
}

/** Puts the disks of the members back to a snapshot. */
export function useRestoreSnapshot() {
  return useMutation({
    mutationFn: ({ snapshot, request }: { snapshot: Snapshot; request: Schemas["RestoreSnapshot"] }) =>
      body(api.POST("/v1/snapshots/{snapshot}/restore", { ...at(snapshot), body: request })),
  });
}

/** What would be free if a snapshot were deleted; null if that is not known. */
export function useFreedBySnapshot(snapshot: Snapshot, enabled: boolean) {
  return useQuery({
    ...oneQuery<number | null>(
      "snapshots",
      snapshot.id,
      async (signal) => {
        const answer = await body(
          api.DELETE("/v1/snapshots/{snapshot}", {
            params: { path: { snapshot: snapshot.id }, query: { project: snapshot.project, dry_run: true } },
            signal,
          }),
        );
        return "freed_bytes" in answer ? answer.freed_bytes : null;
      },
      "freed",
    ),
    enabled,
    // What others share with it changes without an event of this snapshot.
    staleTime: 0,
  });
}
