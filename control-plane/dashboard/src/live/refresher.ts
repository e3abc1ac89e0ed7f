/**
 * Brings queries up to date after events. A thousand events cost a handful of calls: what events touch is collected, and
 * a query is read again at most once a second, and so that reading it takes a fifth of the time at most. What is not on
 * the screen is only marked; it is read when it is shown. A tab that nobody sees reads nothing until it is seen again.
 */
import type { Query, QueryClient } from "@tanstack/react-query";
import type { MusterEvent } from "./feed.ts";
import { isNothing, isStale, nothingTouched, touch } from "./stale.ts";

/** How long events are collected before anything is read: a burst has to have a chance to arrive. */
const gatherMs = 80;
const oftenestMs = 1_000;
const shareOfTime = 5;

export class Refresher {
  readonly #client: QueryClient;
  readonly #now: () => number;
  #touched = nothingTouched();
  /** Queries that have to be read again, and when each may be read next. */
  readonly #due = new Set<string>();
  readonly #notBefore = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly #onSeen = () => {
    if (!document.hidden) this.#wake(0);
  };

  constructor(client: QueryClient, now: () => number = Date.now) {
    this.#client = client;
    this.#now = now;
    document.addEventListener("visibilitychange", this.#onSeen);
  }

  /** Takes note of an event. */
  take(event: MusterEvent): void {
    touch(this.#touched, event);
    this.#wake(gatherMs);
  }

  /** Everything may have changed. */
  takeAll(): void {
    for (const query of this.#client.getQueryCache().getAll()) this.#mark(query);
    this.#wake(0);
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.#onSeen);
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#touched = nothingTouched();
    this.#due.clear();
    this.#notBefore.clear();
  }

  #wake(ms: number): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pass();
    }, ms);
  }

  #mark(query: Query): void {
    if (query.queryKey[0] === "me") return;
    if (query.isActive()) this.#due.add(query.queryHash);
    else query.invalidate();
  }

  #pass(): void {
    const cache = this.#client.getQueryCache();
    if (!isNothing(this.#touched)) {
      const touched = this.#touched;
      this.#touched = nothingTouched();
      for (const query of cache.getAll()) if (isStale(query.queryKey, touched)) this.#mark(query);
    }
    if (document.hidden) return;
    const now = this.#now();
    let next = Number.POSITIVE_INFINITY;
    for (const hash of this.#due) {
      const query = cache.get(hash);
      if (query === undefined || !query.isActive()) {
        query?.invalidate();
        this.#due.delete(hash);
        this.#notBefore.delete(hash);
        continue;
      }
      const allowed = this.#notBefore.get(hash) ?? 0;
      // What is being read now was asked for before the event.
      if (query.state.fetchStatus === "fetching") next = Math.min(next, 100);
      else if (allowed > now) next = Math.min(next, allowed - now);
      else {
        this.#due.delete(hash);
        void this.#read(query, now);
      }
    }
    if (next !== Number.POSITIVE_INFINITY) this.#wake(next);
  }

  async #read(query: Query, begun: number): Promise<void> {
    this.#notBefore.set(query.queryHash, begun + oftenestMs);
    await this.#client.refetchQueries({ queryKey: query.queryKey, exact: true }, { cancelRefetch: false });
    const took = this.#now() - begun;
    this.#notBefore.set(query.queryHash, begun + Math.max(oftenestMs, took * shareOfTime));
  }
}
