/** Sends a file to an image. XMLHttpRequest, because `fetch` does not tell how much is sent. Tested in upload.test.ts. */
import { ApiError } from "../../api/client.ts";
import type { Version } from "../../api/versions.ts";

export interface Upload {
  image: string;
  project: string;
  file: Blob;
  format?: string;
  sha256?: string;
}

export interface Uploaded {
  version: Version;
  /** False if the newest version had these bytes already. */
  isNew: boolean;
}

export function uploadUrl({ image, project, format, sha256 }: Omit<Upload, "file">): string {
  const query = new URLSearchParams({ project });
  if (format) query.set("format", format);
  if (sha256) query.set("sha256", sha256);
  return `/v1/images/${encodeURIComponent(image)}/content?${query}`;
}

/** Sends the file and waits for its version. Rejects with an `AbortError` if `signal` ends it. */
export function sendFile(upload: Upload, onSent: (bytes: number) => void, signal: AbortSignal): Promise<Uploaded> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const end = () => request.abort();
    const settle = (act: () => void) => {
      signal.removeEventListener("abort", end);
      act();
    };
    request.upload.onprogress = (event) => onSent(event.loaded);
    request.onload = () =>
      settle(() => {
        const answer = parse(request.responseText);
        if (request.status === 200 || request.status === 201) {
          resolve({ version: answer as unknown as Version, isNew: request.status === 201 });
        } else {
          reject(
            new ApiError(request.status, {
              request_id: request.getResponseHeader("x-request-id") ?? undefined,
              ...answer,
            }),
          );
        }
      });
    request.onerror = () =>
      settle(() =>
        reject(
          new ApiError(0, {
            code: "no_answer",
            detail:
              "The connection broke before all was sent. The controller may be gone, or it refused the file early: its log tells.",
          }),
        ),
      );
    request.onabort = () => settle(() => reject(new DOMException("the upload was cancelled", "AbortError")));
    if (signal.aborted) {
      reject(new DOMException("the upload was cancelled", "AbortError"));
      return;
    }
    signal.addEventListener("abort", end);
    request.open("PUT", uploadUrl(upload));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(upload.file);
  });
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
