import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery, oneQuery } from "./lists.ts";

export type Image = Schemas["Image"];

/** What a change to an image names: its id, and its project where the change starts in a list. */
type Named = Pick<Image, "id" | "project">;

export const imagesQuery = () =>
  listQuery<Image>("images", {}, (page, signal) => body(api.GET("/v1/images", { params: { query: page }, signal })));

export const imageQuery = (id: string) =>
  oneQuery<Image>("images", id, (signal) =>
    body(api.GET("/v1/images/{image}", { params: { path: { image: id } }, signal })),
  );

export function useImages() {
  return useQuery(imagesQuery());
}

export function useImage(id: string) {
  return useQuery(imageQuery(id));
}

/** What deleting an image would free; null if the controller cannot tell in time. */
export function useImageFreed(image: Named, enabled = true) {
  return useQuery({
    ...oneQuery<{ bytes: number | null }>("images", image.id, (signal) => imageFreed(image, signal), "freed"),
    enabled,
  });
}

export async function imageFreed(image: Named, signal?: AbortSignal): Promise<{ bytes: number | null }> {
  const { data } = await api.DELETE("/v1/images/{image}", {
    params: { path: { image: image.id }, query: { dry_run: true, project: image.project } },
    ...(signal === undefined ? {} : { signal }),
  });
  return { bytes: (data as Schemas["Freed"] | undefined)?.freed_bytes ?? null };
}

export interface NewImage {
  name: string;
  chunkBytes?: number;
  /** The version that it is a clone of. Left out: the content is uploaded. */
  version?: string;
}

export function useCreateImage() {
  return useMutation({
    mutationFn: ({ name, chunkBytes, version }: NewImage) =>
      body(
        api.POST("/v1/images", {
          body: {
            name,
            ...(chunkBytes === undefined ? {} : { chunk_bytes: chunkBytes }),
            ...(version === undefined ? {} : { source: { version } }),
          },
        }),
      ),
  });
}

/** Changes name or labels; a label that is null goes. */
export function useChangeImage() {
  return useMutation({
    mutationFn: ({ image, change }: { image: Named; change: Schemas["PatchImage"] }) =>
      body(
        api.PATCH("/v1/images/{image}", {
          params: { path: { image: image.id }, query: { project: image.project } },
          body: change,
        }),
      ),
  });
}

export function useDeleteImage() {
  return useMutation({
    mutationFn: async (image: Named) => {
      await api.DELETE("/v1/images/{image}", {
        params: { path: { image: image.id }, query: { project: image.project } },
      });
    },
  });
}
