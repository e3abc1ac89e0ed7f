/**
 * What the API has and `schema.gen.ts` may not name yet, because it is made from an older document. Everything here is
 * optional, so pages work with a controller that lacks it. Once the document has it all, this file can go.
 */
import { api } from "./client.ts";

/** Body of `POST /v1/snapshots/{snapshot}/restore`. */
export interface RestoreSnapshot {
  discard_current?: boolean;
  allow_missing?: boolean;
  force?: boolean;
}

type Call = (path: string, init: object) => Promise<{ data?: unknown }>;

/** The client, for calls and bodies that the document does not have yet. */
export const ahead = api as unknown as { POST: Call };
