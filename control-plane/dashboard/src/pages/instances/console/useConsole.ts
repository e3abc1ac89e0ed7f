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
  const wake = useRef<() => void>(undefined);
  const { id, etag } = instance;
  const latest = useRef(instance);
  latest.current = instance;

  // biome-ignore lint/correctness/useExhaustiveDependencies: another state of the instance may mean more text
  useEffect(() => wake.current?.(), [etag]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the latest state of the same instance does
  useEffect(() => {
    if (sink === null) return undefined;
    const ended = new AbortController();
    void run(latest, tail, follow, sink, ended.signal, setReading, (next) => {
      wake.current = next;
    });
    return () => ended.abort();
  }, [id, tail, follow, sink]);

  return reading;
}

async function run(
  instance: { current: Instance },
  tail: string,
  follow: boolean,
  sink: Sink,
  signal: AbortSignal,
  tell: (reading: Reading) => void,
  setWake: (wake: () => void) => void,
): Promise<void> {
  let shown = "";
  let begun = false;
  const replace = (text: string) => {
    sink.reset();
    sink.write(text);
    shown = text;
  };
  // Asked to wake up while it reads, it reads once more.
  let woken = false;
  let wakeUp = () => {
    woken = true;
  };
  setWake(() => wakeUp());
  const rest = () =>
    new Promise<void>((resolve) => {
      if (woken || signal.aborted) {
        woken = false;
        resolve();
        return;
      }
      const timer = setTimeout(done, repeatMs);
      function done() {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        wakeUp = () => {
          woken = true;
        };
        woken = false;
        resolve();
      }
      wakeUp = done;
      signal.addEventListener("abort", done);
    });

  while (!signal.aborted) {
    try {
      const stream = follow ? await followConsole(instance.current, tail, signal) : null;
      if (stream !== null) {
        const decoder = new TextDecoder();
        replace("");
        tell({ how: "live", empty: true });
        const reader = stream.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          const text = decoder.decode(value, { stream: true });
          if (shown === "") tell({ how: "live", empty: false });
          shown = "some";
          sink.write(text);
        }
        // The stream ends with the instance, with the session, or after an hour.
        tell({ how: "repeated", empty: shown === "" });
      } else {
        const text = await readConsole(instance.current, tail, signal);
        const added = begun ? addedText(shown, text) : null;
        if (added === null) replace(text);
        else if (added !== "") {
          sink.write(added);
          shown = text;
        }
        begun = true;
        tell({ how: follow ? "repeated" : "paused", empty: text === "" });
        if (!follow) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      tell({ how: follow ? "repeated" : "paused", empty: shown === "", error });
      if (!follow) return;
    }
    // What is not looked at is not read.
    do await rest();
    while (document.hidden && !signal.aborted);
  }
}
