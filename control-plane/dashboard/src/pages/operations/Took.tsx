import type { Operation } from "../../api/operations.ts";
import { useNow } from "../../ui/clock.ts";
import { duration } from "../../ui/format.ts";

/** How long an operation that goes on has taken so far. */
export function Took({ operation }: { operation: Operation }) {
  const now = useNow();
  return <>{duration(Math.max(0, now - Date.parse(operation.started_at ?? operation.created_at)))}</>;
}
