import { useState } from "react";
import { ApiError } from "../api/client.ts";

/** What a form begins with, while others may change the same thing. */
export interface Base<T> {
  /** The thing that the form is about, as its reader knows it. Changes are made to this one only (`If-Match`). */
  base: T;
  /** Somebody changed it since. */
  isOld: boolean;
  /** The form is about the newest state from now on. */
  renew: () => void;
}

/** Keeps the thing that a form began with, and tells when `current` is another state of it. */
export function useBase<T extends { etag: string }>(current: T): Base<T> {
  const [base, setBase] = useState(current);
  return { base, isOld: base.etag !== current.etag, renew: () => setBase(current) };
}

/** Whether a change was refused because somebody else was quicker. `ChangedMeanwhile` tells of that. */
export function isOvertaken(error: unknown): boolean {
  return error instanceof ApiError && error.status === 412;
}
