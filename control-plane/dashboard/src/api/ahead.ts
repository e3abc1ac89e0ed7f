/**
 * What the API has and `schema.gen.ts` may not name yet, because it is made from an older document. Everything here is
 * optional, so pages work with a controller that lacks it. Once the document has it all, this file can go.
 */
import { api } from "./client.ts";

/** Which scheduled snapshots stay. */
export interface Keep {
  last: number;
  hourly: number;
  daily: number;
  weekly: number;
}

export interface Protect {
  /** Time between two scheduled snapshots: `15m`. */
  every: string;
  keep: Keep;
}

/** How far the protection of a deployment is. */
export interface Protection {
  last_saved_at: string | null;
  last_snapshot: string | null;
  last_snapshot_name: string | null;
  next_at: string;
  under_way: string | null;
  /** Why the last one did not save everything. */
  trouble: string | null;
}

export interface AheadOfDeployment {
  protect?: Protect | null;
  protection?: Protection | null;
}

export interface AheadOfInstance {
  unsaved_bytes?: number;
  saved_at?: string | null;
}

export interface AheadOfSnapshot {
  scheduled?: boolean;
}

/** Body of `POST /v1/snapshots/{snapshot}/restore`. */
export interface RestoreSnapshot {
  discard_current?: boolean;
  allow_missing?: boolean;
  force?: boolean;
}

type Call = (path: string, init: object) => Promise<{ data?: unknown }>;

/** The client, for calls and bodies that the document does not have yet. */
export const ahead = api as unknown as { POST: Call; PATCH: Call };
