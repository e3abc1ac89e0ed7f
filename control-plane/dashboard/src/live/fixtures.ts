/** What the tests of the stream are made from. */
import type { MusterEvent } from "./feed.ts";

export const event = (kind: string, id: string, name = id, operation?: string): MusterEvent => ({
  id: `position of ${id}`,
  time: "2026-11-29T12:00:00Z",
  kind: `${kind}.state`,
  project: "default",
  target: { kind, id, name },
  actor: "muster",
  data: {},
  ...(operation === undefined ? {} : { operation }),
});
