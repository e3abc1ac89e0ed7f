import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { event } from "./fixtures.ts";
import { Refresher } from "./refresher.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A client with one query on the screen that takes `ms` to read. */
async function shown(key: unknown[], ms = 0) {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY } } });
  const read = vi.fn(() => new Promise((resolve) => setTimeout(() => resolve(read.mock.calls.length), ms)));
  const observer = new QueryObserver(client, { queryKey: key, queryFn: read });
  const leave = observer.subscribe(() => {});
  await vi.advanceTimersByTimeAsync(ms + 1);
  read.mockClear();
  return { client, read, leave, refresher: new Refresher(client) };
}

test("a thousand events in a second cost a list two reads", async () => {
  const { read, refresher } = await shown(["instances", "list", "*", {}]);
  for (let n = 0; n < 1000; n += 1) {
    refresher.take(event("instance", `i-${n}`));
    await vi.advanceTimersByTimeAsync(1);
  }
  expect(read.mock.calls.length).toBeLessThanOrEqual(2);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(read.mock.calls.length).toBeGreaterThanOrEqual(1);
  expect(read.mock.calls.length).toBeLessThanOrEqual(3);
});

test("what happens after a read began is read afterwards", async () => {
  const { read, refresher } = await shown(["instances", "list", "*", {}], 300);
  refresher.take(event("instance", "i-1"));
  await vi.advanceTimersByTimeAsync(150);
  expect(read).toHaveBeenCalledTimes(1);
  refresher.take(event("instance", "i-2"));
  await vi.advanceTimersByTimeAsync(3_000);
  expect(read).toHaveBeenCalledTimes(2);
});

test("a list that takes long is read less often: a fifth of the time at most", async () => {
  const { read, refresher } = await shown(["instances", "list", "*", {}], 2_000);
  for (let second = 0; second < 30; second += 1) {
    refresher.take(event("instance", "i-1"));
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(read.mock.calls.length).toBeGreaterThanOrEqual(3);
  expect(read.mock.calls.length).toBeLessThanOrEqual(4);
});

test("events of other things cost nothing", async () => {
  const { read, refresher } = await shown(["instances", "one", "i-1", "default", ""]);
  refresher.take(event("instance", "i-2"));
  refresher.take(event("image", "i-1"));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(read).not.toHaveBeenCalled();
});

test("what is not on the screen is marked, and read only when it is shown", async () => {
  const key = ["instances", "list", "*", {}];
  const { client, read, leave, refresher } = await shown(key);
  leave();
  refresher.take(event("instance", "i-1"));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(read).not.toHaveBeenCalled();
  expect(client.getQueryState(key)?.isInvalidated).toBe(true);
});

test("after a reset everything on the screen is read again, but who is signed in is not", async () => {
  const { read, refresher } = await shown(["images", "list", "*", {}]);
  refresher.takeAll();
  await vi.advanceTimersByTimeAsync(10);
  expect(read).toHaveBeenCalledTimes(1);
  const me = await shown(["me"]);
  me.refresher.takeAll();
  await vi.advanceTimersByTimeAsync(10);
  expect(me.read).not.toHaveBeenCalled();
});

test("a tab that nobody sees reads nothing, and all that it missed when it is seen again", async () => {
  const { read, refresher } = await shown(["instances", "list", "*", {}]);
  const hidden = vi.spyOn(document, "hidden", "get").mockReturnValue(true);
  refresher.take(event("instance", "i-1"));
  await vi.advanceTimersByTimeAsync(10_000);
  refresher.take(event("instance", "i-2"));
  await vi.advanceTimersByTimeAsync(10_000);
  expect(read).not.toHaveBeenCalled();
  hidden.mockReturnValue(false);
  document.dispatchEvent(new Event("visibilitychange"));
  await vi.advanceTimersByTimeAsync(100);
  expect(read).toHaveBeenCalledTimes(1);
});
