/**
 * What the command palette offers beside pages and things. A page registers its actions while it is shown:
 *
 *     useCommands(() => [{ id: "stop", title: `Stop ${name}`, run: () => setAsking("stop") }], [name]);
 */
import { type DependencyList, useEffect, useSyncExternalStore } from "react";

export interface Command {
  /** Unique among the commands of the page. */
  id: string;
  /** A verb and what it is done to: `Stop web`. */
  title: string;
  /** More words by which it is found. */
  words?: string;
  /** The key that does the same, for display. */
  keys?: string;
  /** Set for what can be done on every page: it stands after what the page itself offers. */
  general?: boolean;
  run: () => void;
}

let commands: readonly Command[] = [];
const groups = new Map<object, readonly Command[]>();
const watchers = new Set<() => void>();

function changed(): void {
  commands = [...groups.values()].flat();
  for (const watcher of watchers) watcher();
}

/** Offers commands until the returned function is called. */
export function registerCommands(list: readonly Command[]): () => void {
  const group = {};
  groups.set(group, list);
  changed();
  return () => {
    groups.delete(group);
    changed();
  };
}

/** Offers commands while a component is shown. */
export function useCommands(make: () => readonly Command[], dependencies: DependencyList): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: the caller says what they depend on
  useEffect(() => registerCommands(make()), dependencies);
}

/** All commands that are offered now. */
export function useAllCommands(): readonly Command[] {
  return useSyncExternalStore(
    (watcher) => {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    () => commands,
  );
}
