/**
 * One connection to `/v1/events`, kept up. It is read with fetch and not with EventSource, because that hides what
 * matters here: the status of a refusal, and the comments by which a silent connection is told from a dead one.
 *
 * What it promises: each event is handed on at least once and in order; after a loss it goes on from the last event it
 * saw; when the controller no longer has the events in between, it says so (`reset`).
 */
import type { Schemas } from "../api/client.ts";
import { MessageReader } from "./sse.ts";

export type MusterEvent = Schemas["Event"];

export interface FeedListener {
  /** The stream is up. */
  onOpen: () => void;
  onEvent: (event: MusterEvent) => void;
  /** Events were missed for good: all that is shown has to be read again. */
  onReset: () => void;
  /** The stream is lost. It is tried again after `retryMs`, unless the session is over (status 401). */
  onLost: (status: number, retryMs: number) => void;
}

/** The controller sends a comment every 15 s. */
const silenceMs = 40_000;
const longestPauseMs = 15_000;

/** The pause before an attempt to connect: 0.5 s at first, 15 s at most. */
export function pauseMs(failures: number): number {
  return Math.min(500 * 2 ** Math.max(0, failures - 1), longestPauseMs);
}

export class EventFeed {
  /** The position of the last event that was seen, or where to begin. */
  lastId: string | undefined;
  readonly #url: string;
  readonly #listener: FeedListener;
  readonly #fetch: typeof fetch;
  readonly #stopped = new AbortController();

  constructor(
    url: string,
    from: string | undefined,
    listener: FeedListener,
    fetcher: typeof fetch = (...args) => fetch(...args),
  ) {
    this.#url = url;
    this.lastId = from;
    this.#listener = listener;
    this.#fetch = fetcher;
  }

  /** Reads until `stop` is called or the session is over. */
  async run(): Promise<void> {
    let failures = 0;
    while (!this.#stopped.signal.aborted) {
      const status = await this.#connect(() => {
        failures = 0;
      });
      if (this.#stopped.signal.aborted) return;
      failures += 1;
      const wait = pauseMs(failures);
      this.#listener.onLost(status, wait);
      if (status === 401) return;
      await this.#pause(wait);
    }
  }

  stop(): void {
    this.#stopped.abort();
  }

  /** One connection from beginning to end. Returns the HTTP status, 0 if no answer came. */
  async #connect(opened: () => void): Promise<number> {
    const ended = new AbortController();
    const signal = AbortSignal.any([ended.signal, this.#stopped.signal]);
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => ended.abort(), silenceMs);
    };
    let status = 0;
    try {
      heard();
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (this.lastId !== undefined) headers["Last-Event-ID"] = this.lastId;
      const response = await this.#fetch(this.#url, { headers, signal, cache: "no-store" });
      status = response.status;
      if (status === 400 && this.lastId !== undefined) {
        // A position of another cluster, or of one that was restored: begin anew.
        this.lastId = undefined;
        this.#listener.onReset();
      }
      if (!response.ok || response.body === null) return status;
      opened();
      this.#listener.onOpen();
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const messages = new MessageReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return status;
        heard();
        for (const message of messages.push(decoder.decode(value, { stream: true }))) this.#take(message);
      }
    } catch {
      return status;
    } finally {
      clearTimeout(watchdog);
      ended.abort();
    }
  }

  #take(message: { name: string; id: string | undefined; data: string }): void {
    if (message.id !== undefined && message.id !== "") this.lastId = message.id;
    if (message.name === "reset") {
      this.#listener.onReset();
      return;
    }
    let event: MusterEvent;
    try {
      event = JSON.parse(message.data) as MusterEvent;
    } catch {
      return;
    }
    this.#listener.onEvent(event);
  }

  /** Waits, but not while the browser says that there is no network, and no longer than until there is one again. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        removeEventListener("online", done);
        this.#stopped.signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      addEventListener("online", done);
      this.#stopped.signal.addEventListener("abort", done);
    });
  }
}
