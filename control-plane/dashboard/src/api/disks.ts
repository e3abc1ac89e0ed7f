/** `/v1/disks`: the disks of instances, and those that belong to none. */
import { useMutation, useQuery } from "@tanstack/react-query";
import type { Client } from "openapi-fetch";
import { api, body, type Schemas } from "./client.ts";
import type { Instance } from "./instances.ts";
import { listQuery, oneQuery, type Paged, showChanged } from "./lists.ts";

export type DiskState = "attaching" | "attached" | "growing" | "detaching" | "detached" | "unknown";

export interface Disk {
  id: string;
  /** Its name within its instance, or the one that it had there. */
  name: string;
  project: string;
  state: DiskState;
  /** What the state waits for, in a sentence. */
  detail: string | null;
  created_at: string;
  updated_at: string;
  etag: string;
  /** Null if it is detached. */
  instance: string | null;
  instance_name: string | null;
  /** Name of the instance that it was detached from. */
  detached_from: string | null;
  size_bytes: number;
  version: string;
  unsaved_bytes: number;
  saved_at: string | null;
}

/** A new disk of an instance, or one that is detached, perhaps under another name. */
export interface AttachDisk {
  disk?: string;
  name?: string;
  size_bytes?: number;
  source?: Schemas["DiskSource"];
}

type Json<T> = { content: { "application/json": T } };
type Of<Path> = { path: Path; query?: { project?: string } };

interface DiskPaths {
  "/v1/disks": {
    get: {
      parameters: {
        query?: { limit?: number; page_token?: string; instance?: string[]; detached?: boolean; project?: string };
      };
      responses: { 200: Json<Paged<Disk>> };
    };
  };
  "/v1/disks/{disk}": {
    get: { parameters: Of<{ disk: string }>; responses: { 200: Json<Disk> } };
    patch: {
      parameters: Of<{ disk: string }>;
      requestBody: Json<{ size_bytes: number }>;
      responses: { 200: Json<Disk> };
    };
    delete: { parameters: Of<{ disk: string }>; responses: { 204: object } };
  };
  "/v1/disks/{disk}/detach": { post: { parameters: Of<{ disk: string }>; responses: { 202: Json<Disk> } } };
  "/v1/instances/{instance}/disks": {
    post: {
      parameters: Of<{ instance: string }>;
      requestBody: Json<AttachDisk>;
      responses: { 200: Json<Disk>; 201: Json<Disk> };
    };
  };
}

const disks = api as unknown as Client<DiskPaths>;

export const disksQuery = () =>
  listQuery<Disk>("disks", {}, (page, signal) => body(disks.GET("/v1/disks", { params: { query: page }, signal })));

export function useDisks() {
  return useQuery(disksQuery());
}

export function useDisk(id: string) {
  return useQuery(
    oneQuery<Disk>("disks", id, (signal) =>
      body(disks.GET("/v1/disks/{disk}", { params: { path: { disk: id } }, signal })),
    ),
  );
}

/** The disks of an instance. */
export function useDisksOf(instance: Instance) {
  return useQuery(
    listQuery<Disk>("disks", { instance: instance.id }, (page, signal) =>
      body(
        disks.GET("/v1/disks", {
          params: { query: { ...page, instance: [instance.id], project: instance.project } },
          signal,
        }),
      ),
    ),
  );
}

/** The disks of a project that belong to no instance. */
export function useDetachedDisks(project: string) {
  return useQuery(
    listQuery<Disk>("disks", { detached: project }, (page, signal) =>
      body(disks.GET("/v1/disks", { params: { query: { ...page, detached: true, project } }, signal })),
    ),
  );
}

const at = ({ id, project }: Disk) => ({ params: { path: { disk: id }, query: { project } } });

export function useGrowDisk() {
  return useMutation({
    mutationFn: ({ disk, size }: { disk: Disk; size: number }) =>
      body(disks.PATCH("/v1/disks/{disk}", { ...at(disk), body: { size_bytes: size } })),
    onSuccess: (changed, { disk }, _result, { client }) => showChanged(client, "disks", disk, changed),
  });
}

export function useDetachDisk() {
  return useMutation({
    mutationFn: (disk: Disk) => body(disks.POST("/v1/disks/{disk}/detach", at(disk))),
    onSuccess: (changed, disk, _result, { client }) => showChanged(client, "disks", disk, changed),
  });
}

/** Attaches a disk to an instance. One that is being detached from it stays. */
export function useAttachDisk() {
  return useMutation({
    mutationFn: ({ instance, project, request }: { instance: string; project: string; request: AttachDisk }) =>
      body(
        disks.POST("/v1/instances/{instance}/disks", {
          params: { path: { instance }, query: { project } },
          body: request,
        }),
      ),
    onSuccess: (changed, _asked, _result, { client }) => showChanged(client, "disks", changed, changed),
  });
}

export function useDeleteDisk() {
  return useMutation({ mutationFn: (disk: Disk) => disks.DELETE("/v1/disks/{disk}", at(disk)) });
}
