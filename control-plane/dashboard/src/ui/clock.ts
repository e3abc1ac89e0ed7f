/** One clock for all relative times on the page: it ticks once a second, and only while something listens. */
import { useSyncExternalStore } from "react";

let current = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;
const listeners = new Set<() => void>();

/** Calls back at each tick. */
export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === undefined) {
    current = Date.now();
    timer = setInterval(() => {
      current = Date.now();
      for (const each of listeners) each();
    }, 1000);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The time of the last tick, in milliseconds. */
export function now(): number {
  return current;
}

/** The time now in milliseconds; draws the component again once a second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, now);
}
