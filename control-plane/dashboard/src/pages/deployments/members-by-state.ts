/** The members of a deployment by what matters to the reader. Pure; tested in members-by-state.test.ts. */
import type { Deployment } from "../../api/deployments.ts";
import type { Tone } from "../../ui/states.ts";

export interface Share {
  /** What the members are: `ready`, `starting`, `failed`. */
  word: string;
  members: number;
  tone: Tone;
}

const order: readonly (readonly [string, string, Tone])[] = [
  ["running", "not ready yet", "busy"],
  ["starting", "starting", "busy"],
  ["pending", "pending", "busy"],
  ["migrating", "migrating", "busy"],
  ["stopping", "stopping", "busy"],
  ["deleting", "deleting", "busy"],
  ["stopped", "stopped", "idle"],
  ["paused", "paused", "warn"],
  ["unknown", "unknown", "warn"],
  ["failed", "failed", "bad"],
];

/** The shares of a bar, best first. Of the running members those that are ready stand alone. */
export function membersByState({ counts, ready }: Pick<Deployment, "counts" | "ready">): Share[] {
  const shares: Share[] = [{ word: "ready", members: ready, tone: "good" }];
  for (const [state, word, tone] of order) {
    const members = (counts[state] ?? 0) - (state === "running" ? ready : 0);
    shares.push({ word, members, tone });
  }
  const known = new Set(order.map(([state]) => state));
  for (const [state, members] of Object.entries(counts)) {
    if (!known.has(state) && state !== "deleted") shares.push({ word: state, members, tone: "warn" });
  }
  return shares.filter(({ members }) => members > 0);
}

/** `398 ready, 2 failed` */
export function sayShares(shares: readonly Share[]): string {
  return shares.length === 0 ? "no members" : shares.map(({ word, members }) => `${members} ${word}`).join(", ");
}
