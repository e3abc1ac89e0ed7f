/**
 * The live stream of all tabs. One tab reads it, the one that holds the lock `muster-events`, and hands everything on by
 * a BroadcastChannel: without HTTP/2 a browser allows six connections to a host, and each stream takes one. When that
 * tab closes, the browser gives the lock to the next, which goes on from the last event that was handed on.
 *
 * Where the browser has no locks (a page that came without TLS from another machine), each tab reads a stream itself.
 */
import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import { EventFeed, type MusterEvent } from "./feed.ts";
import { Refresher } from "./refresher.ts";

export interface LiveState {
  state: "connecting" | "live" | "lost";
  /** Since when, in milliseconds. */
  since: number;
  /** When it is tried again, in milliseconds; only if lost. */
  retryAt?: number;
}

/** What the reading tab tells the others, and `hello` what a new one asks. */
type Word =
  | { type: "event"; event: MusterEvent }
  | { type: "reset" }
  | { type: "state"; state: LiveState; lastId: string | undefined }
  | { type: "signed-out" }
  | { type: "hello" };

interface Options {
  client: QueryClient;
  url: string;
  /** Where to begin: `as_of` of the summary. */
  from: () => Promise<string | undefined>;
  /** The session has ended. */
  onSignedOut: () => void;
  locks?: Pick<LockManager, "request"> | undefined;
  channel?: () => BroadcastChannel;
  fetcher?: typeof fetch;
}

export class Live {
  readonly #options: Options;
  readonly #refresher: Refresher;
  readonly #stopped = new AbortController();
  readonly #channel: BroadcastChannel | undefined;
  readonly #watchers = new Set<() => void>();
  readonly #listeners = new Set<(event: MusterEvent) => void>();
  #state: LiveState = { state: "connecting", since: Date.now() };
  #lastId: string | undefined;
  #reads = false;

  constructor(options: Options) {
    this.#options = options;
    this.#refresher = new Refresher(options.client);
    if (options.locks !== undefined) {
      this.#channel = (options.channel ?? (() => new BroadcastChannel("muster-events")))();
      this.#channel.onmessage = (message: MessageEvent<Word>) => this.#hear(message.data);
      this.#tell({ type: "hello" });
    }
  }

  /** Whether this tab is the one that reads the stream. */
  get reads(): boolean {
    return this.#reads;
  }

  /** Follows the stream until `stop`. */
  async run(): Promise<void> {
    const { locks } = this.#options;
    const signal = this.#stopped.signal;
    if (locks === undefined) return this.#read();
    try {
      await locks.request("muster-events", { signal }, () => this.#read());
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  stop(): void {
    this.#stopped.abort();
    this.#refresher.stop();
    this.#channel?.close();
  }

  /** Tells the other tabs that the session was ended here. */
  signedOut(): void {
    this.#tell({ type: "signed-out" });
  }

  getState(): LiveState {
    return this.#state;
  }

  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Calls back for each event, in every tab. */
  onEvent(listener: (event: MusterEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async #read(): Promise<void> {
    const signal = this.#stopped.signal;
    this.#reads = true;
    // The tab that read before is gone, and with it what it had not handed on: the events since the last one known.
    let from = this.#lastId;
    if (from === undefined) {
      try {
        from = await this.#options.from();
      } catch {
        // The stream then begins with the present. What it finds when it opens is read anew.
        this.#set({ state: "lost", since: this.#state.since });
      }
    }
    if (signal.aborted) return;
    const feed = new EventFeed(
      this.#options.url,
      from,
      {
        onOpen: () => {
          if (feed.lastId === undefined) this.#reset();
          this.#set({ state: "live", since: Date.now() });
        },
        onEvent: (event) => {
          this.#lastId = event.id;
          this.#tell({ type: "event", event });
          this.#take(event);
        },
        onReset: () => this.#reset(),
        onLost: (status, retryMs) => {
          const before = this.#state;
          const since = before.state === "lost" ? before.since : Date.now();
          this.#set({ state: "lost", since, retryAt: Date.now() + retryMs });
          if (status === 401) {
            this.#tell({ type: "signed-out" });
            this.#over();
          }
        },
      },
      this.#options.fetcher,
    );
    signal.addEventListener("abort", () => feed.stop());
    await feed.run();
    this.#reads = false;
  }

  /** The session has ended: nothing can be read until somebody signs in again. */
  #over(): void {
    if (this.#stopped.signal.aborted) return;
    this.stop();
    this.#options.onSignedOut();
  }

  #reset(): void {
    this.#tell({ type: "reset" });
    this.#refresher.takeAll();
  }

  #take(event: MusterEvent): void {
    this.#refresher.take(event);
    for (const listener of this.#listeners) listener(event);
  }

  #set(state: LiveState): void {
    this.#tell({ type: "state", state, lastId: this.#lastId });
    this.#show(state);
  }

  #show(state: LiveState): void {
    this.#state = state;
    for (const watcher of this.#watchers) watcher();
  }

  #tell(word: Word): void {
    if (!this.#stopped.signal.aborted) this.#channel?.postMessage(word);
  }

  #hear(word: Word): void {
    if (word.type === "hello") {
      if (this.#reads) this.#tell({ type: "state", state: this.#state, lastId: this.#lastId });
    } else if (word.type === "event") {
      this.#lastId = word.event.id;
      this.#take(word.event);
    } else if (word.type === "reset") this.#refresher.takeAll();
    else if (word.type === "signed-out") this.#over();
    else {
      this.#lastId = word.lastId ?? this.#lastId;
      this.#show(word.state);
    }
  }
}

let current: Live | undefined;
let shown: LiveState = { state: "connecting", since: Date.now() };
const watchers = new Set<() => void>();
const listeners = new Set<(event: MusterEvent) => void>();

/** Starts the stream of this tab. Called by the frame once somebody is signed in. */
export function startLive(options: Options): () => void {
  const live = new Live(options);
  current = live;
  live.watch(() => {
    shown = live.getState();
    for (const watcher of watchers) watcher();
  });
  live.onEvent((event) => {
    for (const listener of listeners) listener(event);
  });
  void live.run();
  return () => {
    live.stop();
    if (current === live) current = undefined;
  };
}

/** Tells the other tabs that the session was ended here. */
export function tellSignedOut(): void {
  current?.signedOut();
}

/** Calls back for each event, such as for a timeline that is drawn from events. Returns how to stop that. */
export function onLiveEvent(listener: (event: MusterEvent) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function watchLive(watcher: () => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** Whether the page is up to date by itself. */
export function useLiveState(): LiveState {
  return useSyncExternalStore(watchLive, () => shown);
}
