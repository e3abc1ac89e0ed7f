/** The steps of a start, as a line of time. Pure; tested in steps.test.ts. */
import type { Instance } from "../../api/instances.ts";

export interface Step {
  key: "asked" | "placed" | "disk" | "started" | "ready";
  title: string;
  /** What goes on until this step is reached. */
  before: string;
  /** When it was reached; null if it was not, or if that is not told. */
  at: string | null;
  /** Milliseconds since the step before. */
  tookMs: number | null;
  /** Milliseconds since the start was asked for. */
  sinceMs: number | null;
  /** `kept`: reached in an earlier start, and still true. `untold`: it is not known when. */
  state: "done" | "now" | "ahead" | "kept" | "untold";
}

export interface StartLine {
  steps: Step[];
  /** From the first known step to the last one, or to now while the start goes on. */
  totalMs: number;
  /** The start goes on. */
  going: boolean;
}

type Facts = Pick<Instance, "state" | "steps" | "boots" | "created_at" | "ready_at">;

const titles: [Step["key"], string, string][] = [
  ["asked", "Asked", ""],
  ["placed", "Placed", "waits for a node"],
  ["disk", "Disk there", "its disk is prepared"],
  ["started", "Started", "the hypervisor starts it"],
  ["ready", "Ready", "the guest boots"],
];

export function startLine(instance: Facts, now: number): StartLine {
  const { steps } = instance;
  const first = instance.boots <= 1;
  const asked = steps.requested_at ?? (first ? instance.created_at : null);
  const times = [asked, steps.placed_at, steps.disk_at, steps.started_at, instance.ready_at];
  const going =
    ["pending", "starting"].includes(instance.state) || (instance.state === "running" && !instance.ready_at);
  // On a later start an instance keeps its place, which was found long before.
  const begin = asked ?? (first ? steps.placed_at : (steps.disk_at ?? steps.started_at ?? instance.ready_at));
  const beginMs = begin === null ? null : Date.parse(begin);
  let lastMs = beginMs;
  let current = going;
  const line = titles.map(([key, title, before], index): Step => {
    const at = times[index] ?? null;
    const atMs = at === null ? null : Date.parse(at);
    const kept = key === "placed" && atMs !== null && (beginMs === null || atMs < beginMs);
    if (kept) return { key, title, before, at, tookMs: null, sinceMs: null, state: "kept" };
    if (atMs === null) {
      const later = times.slice(index + 1).some((time) => time !== null);
      // An instance that does not run (any more) does not tell whether it was ready.
      const wasReady = key === "ready" && steps.started_at !== null && instance.state !== "running" && !going;
      if (later || wasReady || (key === "asked" && beginMs === null)) {
        return { key, title, before, at, tookMs: null, sinceMs: null, state: "untold" };
      }
      const isNow = current;
      current = false;
      return { key, title, before, at, tookMs: null, sinceMs: null, state: isNow ? "now" : "ahead" };
    }
    const tookMs = lastMs === null || key === "asked" ? null : Math.max(0, atMs - lastMs);
    lastMs = Math.max(lastMs ?? atMs, atMs);
    return {
      key,
      title,
      before,
      at,
      tookMs,
      sinceMs: beginMs === null ? null : Math.max(0, atMs - beginMs),
      state: "done",
    };
  });
  const endMs = going ? Math.max(now, lastMs ?? now) : lastMs;
  return { steps: line, totalMs: beginMs === null || endMs === null ? 0 : endMs - beginMs, going };
}
