import type { Pool } from "../../api/pools.ts";

/** A pool of three nodes where all is well, as an older controller tells of it. */
export const wellPool = {
  id: "default",
  name: "default",
  min_copies: 2,
  nodes: 3,
  usage: {
    limit_bytes: 300 * 1024 ** 3,
    used_bytes: 30 * 1024 ** 3,
    objects: 120_000,
    free_bytes: 270 * 1024 ** 3,
    cache_bytes: 0,
    lost_objects: 0,
    lost_bytes: 0,
  },
  sweep: {
    state: "idle",
    reason: null,
    since: "2026-11-30T00:00:00Z",
    round: 7,
    begun_at: "2026-11-30T00:00:00Z",
    needed_objects: 60_000,
    nodes_done: 3,
    awaited: [],
    dropped_objects: 120,
    dropped_bytes: 30 * 1024 ** 2,
    reclaimed_bytes: 28 * 1024 ** 2,
  },
  repair: {
    nodes_done: 3,
    unchecked_objects: 0,
    missing: { objects: 0, bytes: 0 },
    copied: { objects: 12, bytes: 3 * 1024 ** 2 },
    bytes_per_s: 0,
  },
} as unknown as Pool;

/** The reason that a controller gives after its database was restored. */
export const restoredReason =
  "the database was restored, and may not know all that is needed: see what was found on nodes, then allow the sweep with `muster pool sweep --after-restore`";
