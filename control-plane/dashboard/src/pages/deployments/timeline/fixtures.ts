/** Members for tests. */
import type { Instance } from "../../../api/instances.ts";

const start = Date.parse("2026-11-29T12:00:00Z");
const time = (ms: number | null) => (ms === null ? null : new Date(start + ms).toISOString());

interface Way {
  requested?: number;
  placed?: number | null;
  disk?: number | null;
  started?: number | null;
  ready?: number | null;
  changes?: Partial<Instance>;
}

/** A member that was asked for at 12:00 and reached its steps so many milliseconds later. */
export function member(
  number: number,
  { requested = 0, placed = 0, disk = null, started = null, ready = null, changes }: Way,
): Instance {
  return {
    id: `id-${number}`,
    name: `web.${number}`,
    number,
    project: "default",
    state: started === null ? "starting" : "running",
    reason: null,
    detail: null,
    created_at: time(0),
    updated_at: time(Math.max(placed ?? 0, disk ?? 0, started ?? 0, ready ?? 0)),
    steps: { requested_at: time(requested), placed_at: time(placed), disk_at: time(disk), started_at: time(started) },
    ready_at: time(ready),
    boots: 1,
    last_reason: null,
    last_reason_at: null,
    node_name: "node-1",
    ...changes,
  } as unknown as Instance;
}

/** That many milliseconds after 12:00. */
export const after = (ms: number) => start + ms;
