import { QueryClient } from "@tanstack/react-query";
import { afterEach, expect, test, vi } from "vitest";
import { pauseMs } from "./feed.ts";
import { event } from "./fixtures.ts";
import { Live } from "./live.ts";

/** A browser: its locks and its channels, which all tabs share. */
function browser() {
  let last: Promise<unknown> = Promise.resolve();
  const ports = new Set<{ onmessage: ((message: MessageEvent) => void) | null }>();
  return {
    locks: {
      request(_name: string, options: { signal?: AbortSignal }, run: () => Promise<void>) {
        const turn = last.then(() => (options.signal?.aborted ? undefined : run()));
        last = turn.catch(() => {});
        return turn;
      },
    } as unknown as LockManager,
    channel: () => {
      const port = {
        onmessage: null as ((message: MessageEvent) => void) | null,
        postMessage(data: unknown) {
          const copy = structuredClone(data);
          for (const other of ports) {
            if (other !== port) queueMicrotask(() => other.onmessage?.({ data: copy } as MessageEvent));
          }
        },
        close: () => ports.delete(port),
      };
      ports.add(port);
      return port as unknown as BroadcastChannel;
    },
  };
}

/** A controller: keeps the streams that were opened, and writes to them. */
function controller() {
  const streams: { after: string | null; send: (text: string) => void; end: () => void; signal: AbortSignal }[] = [];
  let status = 200;
  const fetcher = (async (_url: string, init: RequestInit) => {
    if (status !== 200) return new Response("", { status });
    let control: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (given) => {
        control = given;
      },
    });
    const signal = init.signal as AbortSignal;
    signal.addEventListener("abort", () => {
      try {
        control?.error(new Error("aborted"));
      } catch {
        // It has ended already.
      }
    });
    streams.push({
      after: new Headers(init.headers).get("Last-Event-ID"),
      send: (text) => control?.enqueue(new TextEncoder().encode(text)),
      end: () => control?.close(),
      signal,
    });
    return new Response(body, { status: 200 });
  }) as unknown as typeof fetch;
  const frame = (id: string) => `id: ${id}\ndata: ${JSON.stringify({ ...event("instance", id), id })}\n\n`;
  return {
    streams,
    fetcher,
    frame,
    refuse: (with_: number) => {
      status = with_;
    },
  };
}

/** Waits until something holds. */
const until = (check: () => void) => vi.waitFor(check, { timeout: 10_000 });

const tabs: Live[] = [];
function tab(world: ReturnType<typeof browser> | undefined, server: ReturnType<typeof controller>) {
  const onSignedOut = vi.fn();
  const client = new QueryClient();
  const live = new Live({
    client,
    url: "/v1/events",
    from: async () => "as-of",
    onSignedOut,
    locks: world?.locks,
    channel: world?.channel,
    fetcher: server.fetcher,
  });
  const seen: string[] = [];
  live.onEvent(({ id }) => seen.push(id));
  const states: string[] = [];
  live.watch(() => states.push(live.getState().state));
  void live.run();
  tabs.push(live);
  return { live, seen, states, onSignedOut, client };
}

afterEach(() => {
  for (const live of tabs.splice(0)) live.stop();
});

test("one tab reads the stream from where the summary was taken, and all tabs get the events", async () => {
  const [world, server] = [browser(), controller()];
  const first = tab(world, server);
  const second = tab(world, server);
  await until(() => expect(first.live.getState().state).toBe("live"));
  expect(server.streams.map(({ after }) => after)).toEqual(["as-of"]);
  server.streams[0]?.send(server.frame("e1") + server.frame("e2"));
  await until(() => expect(second.seen).toEqual(["e1", "e2"]));
  expect(first.seen).toEqual(["e1", "e2"]);
  expect(second.live.getState().state).toBe("live");
  expect([first.live.reads, second.live.reads]).toEqual([true, false]);
});

test("when the reading tab closes, the next goes on from the last event that it saw", async () => {
  const [world, server] = [browser(), controller()];
  const first = tab(world, server);
  const second = tab(world, server);
  await until(() => expect(server.streams.length).toBe(1));
  server.streams[0]?.send(server.frame("e1"));
  await until(() => expect(second.seen).toEqual(["e1"]));
  first.live.stop();
  await until(() => expect(server.streams.length).toBe(2));
  expect(server.streams[0]?.signal.aborted).toBe(true);
  expect(server.streams[1]?.after).toBe("e1");
  server.streams[1]?.send(server.frame("e2"));
  await until(() => expect(second.seen).toEqual(["e1", "e2"]));
  expect(first.seen).toEqual(["e1"]);
});

test("a tab that opens later learns at once that the stream is up, and where it is", async () => {
  const [world, server] = [browser(), controller()];
  const first = tab(world, server);
  await until(() => expect(first.live.getState().state).toBe("live"));
  server.streams[0]?.send(server.frame("e7"));
  await until(() => expect(first.seen).toEqual(["e7"]));
  const late = tab(world, server);
  await until(() => expect(late.live.getState().state).toBe("live"));
  first.live.stop();
  await until(() => expect(server.streams[1]?.after).toBe("e7"));
});

test("without locks each tab reads a stream of its own", async () => {
  const server = controller();
  tab(undefined, server);
  tab(undefined, server);
  await until(() => expect(server.streams.length).toBe(2));
});

test("a lost stream is told, since when, and goes on from the last event", async () => {
  const server = controller();
  const { live, states } = tab(undefined, server);
  await until(() => expect(live.getState().state).toBe("live"));
  server.streams[0]?.send(server.frame("e1"));
  server.streams[0]?.end();
  await until(() => expect(live.getState().state).toBe("lost"));
  expect(live.getState().retryAt).toBeGreaterThan(live.getState().since);
  await until(() => expect(server.streams[1]?.after).toBe("e1"));
  await until(() => expect(states).toEqual(["live", "lost", "live"]));
});

test("a reset marks everything that was read as stale, in every tab", async () => {
  const [world, server] = [browser(), controller()];
  const first = tab(world, server);
  const second = tab(world, server);
  await until(() => expect(second.live.getState().state).toBe("live"));
  for (const { client } of [first, second]) client.setQueryData(["images", "list", "*", {}], []);
  server.streams[0]?.send("event: reset\nid: r1\ndata: {}\n\n");
  for (const { client } of [first, second]) {
    await until(() => expect(client.getQueryState(["images", "list", "*", {}])?.isInvalidated).toBe(true));
  }
});

test("when the session is over, every tab is told and nothing is tried again", async () => {
  const [world, server] = [browser(), controller()];
  server.refuse(401);
  const first = tab(world, server);
  const second = tab(world, server);
  await until(() => expect(second.onSignedOut).toHaveBeenCalled());
  await new Promise((resolve) => setTimeout(resolve, 0));
  for (const { onSignedOut } of [first, second]) expect(onSignedOut).toHaveBeenCalledTimes(1);
});

test("pauses between attempts grow from half a second to 15 s", () => {
  expect([1, 2, 3, 6, 60].map(pauseMs)).toEqual([500, 1000, 2000, 15_000, 15_000]);
});
