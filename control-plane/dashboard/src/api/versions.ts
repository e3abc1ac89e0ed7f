import { queryOptions, useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery, oneQuery, type Paged } from "./lists.ts";
import { thingScope } from "./scope.ts";
import { ifOffered } from "./traffic.ts";

export type Version = Schemas["Version"] & {
  /** The version it was made from; null for imports. */
  parent?: string | null;
};

type Named = Pick<Version, "id" | "project">;

/** The versions of one image, by number. */
export const imageVersionsQuery = (image: string) =>
  listQuery<Version>("versions", { image, project: thingScope() }, (page, signal) =>
    body(api.GET("/v1/images/{image}/versions", { params: { path: { image }, query: page }, signal })),
  );

/** All versions of the project of the thing that the page shows: those of images and those of instances' disks. */
export const projectVersionsQuery = () => {
  const project = thingScope();
  return listQuery<Version>("versions", { all: true, project }, (page, signal) =>
    body(
      api.GET("/v1/versions", {
        params: { query: { ...page, ...(project === undefined ? {} : { project }) } },
        signal,
      }),
    ),
  );
};

export const versionQuery = (id: string) =>
  oneQuery<Version>("versions", id, (signal) =>
    body(api.GET("/v1/versions/{version}", { params: { path: { version: id } }, signal })),
  );

export function useVersion(id: string | undefined) {
  return useQuery({ ...versionQuery(id ?? ""), enabled: id !== undefined && id !== "" });
}

/** What deleting a version would free, which is what no other version uses; null if that cannot be told in time. */
export function useVersionFreed(version: Named, enabled = true) {
  return useQuery({
    ...oneQuery<{ bytes: number | null }>("versions", version.id, (signal) => versionFreed(version, signal), "freed"),
    enabled,
  });
}

async function versionFreed(version: Named, signal?: AbortSignal): Promise<{ bytes: number | null }> {
  const { data } = await api.DELETE("/v1/versions/{version}", {
    params: { path: { version: version.id }, query: { dry_run: true, project: version.project } },
    ...(signal === undefined ? {} : { signal }),
  });
  return { bytes: (data as Schemas["Freed"] | undefined)?.freed_bytes ?? null };
}

export function useDeleteVersion() {
  return useMutation({
    mutationFn: async (version: Named) => {
      await api.DELETE("/v1/versions/{version}", {
        params: { path: { version: version.id }, query: { project: version.project } },
      });
    },
  });
}

/** Where the browser downloads the raw bytes of a version. */
export function contentUrl(version: Named): string {
  return `/v1/versions/${encodeURIComponent(version.id)}/content?project=${encodeURIComponent(version.project)}`;
}

/** What is known of each cell of a version. A cell is one chunk, or several where there are many. */
export type Chunks = Schemas["Chunks"];

type Extent = Schemas["Extent"];

/** A disk with more extents than on this many pages is drawn as far as they reach. */
const extentPages = 30;

/** What is known of each cell, by the controller or computed from where the version has data. Only boots change it. */
export function useChunks(version: Version | undefined, fromExtents: (version: Version, extents: Extent[]) => Chunks) {
  return useQuery(
    queryOptions({
      queryKey: ["chunks", version?.id, version?.project] as const,
      queryFn: async ({ signal }): Promise<Chunks> => {
        if (version === undefined) throw new Error("no version is chosen");
        const query = { project: version.project };
        const path = { version: version.id };
        const call = api.GET("/v1/versions/{version}/chunks", { params: { path, query }, signal });
        const known = await ifOffered(body(call));
        if (known !== null) return known;
        const extents: Extent[] = [];
        let token: string | undefined;
        for (let page = 0; page < extentPages; page += 1) {
          const got: Paged<Extent> = await body(
            api.GET("/v1/versions/{version}/extents", {
              params: {
                path,
                query: { ...query, limit: 1000, ...(token === undefined ? {} : { page_token: token }) },
              },
              signal,
            }),
          );
          extents.push(...got.items);
          token = got.next_page_token ?? undefined;
          if (token === undefined) break;
        }
        return fromExtents(version, extents);
      },
      enabled: version !== undefined,
      staleTime: 60_000,
    }),
  );
}
