/** Which queries an event makes stale. Pure; tested in stale.test.ts. */
import type { Noun } from "../api/lists.ts";
import type { MusterEvent } from "./feed.ts";

/** What changed: single things by noun, and nouns of which anything may have changed. */
export interface Touched {
  things: Map<Noun, Set<string>>;
  nouns: Set<Noun>;
}

export function nothingTouched(): Touched {
  return { things: new Map(), nouns: new Set() };
}

export function isNothing(touched: Touched): boolean {
  return touched.things.size === 0 && touched.nouns.size === 0;
}

const nounOf: Record<string, Noun> = {
  deployment: "deployments",
  disk: "disks",
  image: "images",
  instance: "instances",
  network: "networks",
  node: "nodes",
  operation: "operations",
  pool: "pools",
  project: "projects",
  security_group: "security-groups",
  session: "sessions",
  snapshot: "snapshots",
  token: "tokens",
  version: "versions",
};

/** Things that show what others are made of: a deployment counts its instances, a network their cards,
 *  an instance its disks, which go with it. */
const alsoShownBy: Partial<Record<Noun, readonly Noun[]>> = {
  disks: ["instances"],
  // Nodes that come and go change what the pool holds and lacks.
  nodes: ["pools"],
  instances: ["deployments", "disks", "networks", "nodes"],
  versions: ["images", "nodes"],
};

/** Adds what an event touches. */
export function touch(touched: Touched, event: MusterEvent): void {
  const add = (noun: Noun, ...ids: string[]) => {
    const known = touched.things.get(noun) ?? new Set();
    for (const id of ids) known.add(id);
    touched.things.set(noun, known);
  };
  const noun = nounOf[event.target.kind];
  if (noun !== undefined) {
    add(noun, event.target.id, event.target.name);
    for (const other of alsoShownBy[noun] ?? []) touched.nouns.add(other);
  }
  if (event.operation) add("operations", event.operation);
  touched.nouns.add("summary");
  touched.nouns.add("events");
}

/** Whether a query shows something that changed. Keys are made in api/lists.ts. */
export function isStale(key: readonly unknown[], touched: Touched): boolean {
  const [noun, form, id] = key;
  if (touched.nouns.has(noun as Noun)) return true;
  const ids = touched.things.get(noun as Noun);
  if (ids === undefined) return false;
  return form === "one" ? ids.has(id as string) : true;
}
