/** An upload from this page: an image is made for it first, unless there is one already. */
import { useCallback, useRef, useState } from "react";
import { type Image, useCreateImage, useDeleteImage } from "../../api/images.ts";
import type { Version } from "../../api/versions.ts";
import { Pace } from "./pace.ts";
import { sendFile } from "./upload.ts";

export interface UploadForm {
  /** The image that gets the content; null to make a new one. */
  into: Image | null;
  name: string;
  file: File;
  format: string;
  sha256: string;
  chunkBytes?: number;
}

export type UploadState =
  | { step: "idle" }
  | { step: "sending"; sent: number; total: number; perSecond: number | null; leftMs: number | null }
  | { step: "done"; version: Version; isNew: boolean }
  | { step: "failed"; error: unknown };

/** The picture is drawn no more often than this; the browser tells progress far more often. */
const drawEveryMs = 250;

export function useUpload() {
  const [state, setState] = useState<UploadState>({ step: "idle" });
  const create = useCreateImage();
  const remove = useDeleteImage();
  const control = useRef<AbortController>(undefined);
  // An image that was made for an upload that failed is used again by the next attempt.
  const made = useRef<Image>(undefined);

  const start = async (form: UploadForm) => {
    const abort = new AbortController();
    control.current = abort;
    const pace = new Pace();
    const total = form.file.size;
    const show = (sent: number) =>
      setState({ step: "sending", sent, total, perSecond: pace.perSecond(), leftMs: pace.leftMs(total) });
    show(0);
    try {
      let image = form.into ?? (made.current?.name === form.name ? made.current : undefined);
      if (image === undefined) {
        image = await create.mutateAsync({
          name: form.name,
          ...(form.chunkBytes === undefined ? {} : { chunkBytes: form.chunkBytes }),
        });
        made.current = image;
      }
      let drawn = 0;
      const result = await sendFile(
        {
          image: image.id,
          project: image.project,
          file: form.file,
          ...(form.format === "" ? {} : { format: form.format }),
          ...(form.sha256 === "" ? {} : { sha256: form.sha256 }),
        },
        (sent) => {
          const now = performance.now();
          pace.take(now, sent);
          if (now - drawn >= drawEveryMs || sent >= total) {
            drawn = now;
            show(sent);
          }
        },
        abort.signal,
      );
      made.current = undefined;
      setState({ step: "done", ...result });
    } catch (error) {
      if (!abort.signal.aborted) {
        setState({ step: "failed", error });
        return;
      }
      const empty = made.current;
      made.current = undefined;
      // Nothing is left behind of an upload that somebody gave up.
      if (empty !== undefined) await remove.mutateAsync(empty).catch(() => undefined);
      setState({ step: "idle" });
    }
  };
  const cancel = useCallback(() => control.current?.abort(), []);
  const again = () => setState({ step: "idle" });
  return { state, start, cancel, again };
}
