import { useEffect, useRef, useState } from "react";
import { followConsole, type Instance, readConsole } from "../../../api/instances.ts";
import { addedText } from "./console-text.ts";

/** Where the text goes. */
export interface Sink {
  write: (text: string) => void;
  /** Everything that was written is gone. */
  reset: () => void;
}

export interface Reading {
  /** `live`: text comes as it is printed. `repeated`: it is read again from time to time. `paused`: it is not followed. */
  how: "first" | "live" | "repeated" | "paused";
  /** Nothing has been printed. */
  empty: boolean;
  /** Why the last reading failed. What was read before stays. */
  error?: unknown;
}

const repeatMs = 10_000;

/**
 * Reads the end of what an instance prints, and what it prints from then on while `follow` is set. Where the controller
 * cannot send it as it comes, it is read again every 10 s and whenever the instance changes.
 */
export function useConsole(instance: Instance, tail: string, follow: boolean, sink: Sink | null): Reading {
  const [reading, setReading] = useState<Reading>({ how: "first", empty: true });
  const reader = useRef<Reader>(undefined);
  const { id, etag } = instance;
  const latest = useRef(instance);
  latest.current = instance;

  // biome-ignore lint/correctness/useExhaustiveDependencies: another state of the instance may mean more text
  useEffect(() => reader.current?.wake(), [etag]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the latest state of the same instance does
  useEffect(() => {
    if (sink === null) return undefined;
    const made = new Reader(latest, tail, sink, setReading);
    reader.current = made;
    void made.run(follow);
    return () => made.stop();
  }, [id, tail, follow, sink]);

  return reading;
}

const runs = new Set(["pending", "starting", "running", "paused", "stopping", "unknown"]);

class Reader {
  readonly #instance: { current: Instance };
  readonly #tail: string;
  readonly #sink: Sink;
  readonly #tell: (reading: Reading) => void;
  readonly #stopped = new AbortController();
  /** What is shown, as far as it was read at once; undefined before anything was read, and after a stream. */
  #shown: string | undefined;
  #empty = true;
  #canFollow = true;
  #woken = false;
  #endRest: (() => void) | undefined;

  constructor(instance: { current: Instance }, tail: string, sink: Sink, tell: (reading: Reading) => void) {
    this.#instance = instance;
    this.#tail = tail;
    this.#sink = sink;
    this.#tell = tell;
  }

  /** There may be more to read. */
  wake(): void {
    this.#woken = true;
    this.#endRest?.();
  }

  stop(): void {
    this.#stopped.abort();
    this.#endRest?.();
  }

  async run(follow: boolean): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      let ended = false;
      try {
        const stream = follow && this.#canFollow ? await this.#open() : null;
        if (stream === null) await this.#readOnce(follow ? "repeated" : "paused");
        else {
          await this.#readStream(stream);
          ended = true;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#tell({ how: follow ? "repeated" : "paused", empty: this.#empty, error });
      }
      if (!follow) return;
      // A stream that has ended is not opened again before the instance runs again.
      const again = !ended || runs.has(this.#instance.current.state);
      // What nobody looks at is not read.
      do await this.#rest(again);
      while (document.hidden && !signal.aborted);
    }
  }

  async #open(): Promise<ReadableStream<Uint8Array> | null> {
    const stream = await followConsole(this.#instance.current, this.#tail, this.#stopped.signal);
    this.#canFollow = stream !== null;
    return stream;
  }

  async #readOnce(how: Reading["how"]): Promise<void> {
    const text = await readConsole(this.#instance.current, this.#tail, this.#stopped.signal);
    const added = this.#shown === undefined ? null : addedText(this.#shown, text);
    if (added === null) this.#sink.reset();
    const more = added ?? text;
    if (more !== "") this.#sink.write(more);
    this.#shown = text;
    this.#empty = text === "";
    this.#tell({ how, empty: this.#empty });
  }

  /** Shows what comes until the stream ends: with the instance, with the session, or after an hour. */
  async #readStream(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    const reader = stream.getReader();
    let begun = false;
    this.#shown = undefined;
    this.#tell({ how: "live", empty: this.#empty });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      // It begins with the end of what was printed, which is shown already if the stream was opened again.
      if (!begun) this.#sink.reset();
      begun = true;
      this.#sink.write(decoder.decode(value, { stream: true }));
      if (this.#empty) {
        this.#empty = false;
        this.#tell({ how: "live", empty: false });
      }
    }
    this.#tell({ how: "repeated", empty: this.#empty });
  }

  /** Until there may be more to read; `timed`: for ten seconds at most. */
  #rest(timed: boolean): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#endRest = undefined;
        this.#woken = false;
        resolve();
      };
      const timer = timed ? setTimeout(end, repeatMs) : undefined;
      this.#endRest = end;
      if (this.#woken || this.#stopped.signal.aborted) end();
    });
  }
}
