import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../../../api/client.ts";
import type { ConsoleEvent } from "../../../api/consoles.ts";
import { FakeSocket, fakeSockets } from "../../../testing/sockets.ts";
import { ConsoleConnection, delaysMs, type Phase, type Wish } from "./connection.ts";

beforeEach(() => {
  vi.useFakeTimers();
  fakeSockets();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** A connection, and what it told. */
function made(ticket: (wish: Wish) => Promise<{ url: string }>) {
  const told = { phases: [] as Phase[], events: [] as ConsoleEvent[] };
  const ask = vi.fn(ticket);
  const connection = new ConsoleConnection({
    ticket: ask,
    onPhase: (phase) => told.phases.push(phase),
    onSocket: () => {},
    onEvent: (event) => told.events.push(event),
  });
  return { connection, ask, told, now: () => told.phases.at(-1) };
}
let tickets = 0;
const good = async () => {
  tickets += 1;
  return { url: `/v1/consoles?ticket=t${tickets}` };
};
const soon = () => vi.advanceTimersByTimeAsync(0);

test("a ticket is opened at the same origin, and bytes are sent once it is open", async () => {
  const { connection, now } = made(good);
  connection.start();
  await soon();
  const url = new URL(FakeSocket.last.url);
  expect([url.protocol, url.host, url.pathname]).toEqual(["ws:", location.host, "/v1/consoles"]);
  connection.send(new TextEncoder().encode("lost"));
  FakeSocket.last.accept();
  expect(now()).toEqual({ at: "open" });
  connection.send(new TextEncoder().encode("ls\n"));
  expect(FakeSocket.last.text).toBe("ls\n");
});

test("after a break it comes back by itself with a new ticket", async () => {
  const { connection, ask, now } = made(good);
  connection.start();
  await soon();
  FakeSocket.last.accept();
  FakeSocket.last.breaks();
  expect(now()).toEqual({ at: "waiting", attempt: 1, delayMs: delaysMs[0] });
  await vi.advanceTimersByTimeAsync(delaysMs[0] ?? 0);
  expect(ask).toHaveBeenCalledTimes(2);
  expect(new Set(FakeSocket.made.map(({ url }) => url)).size).toBe(2);
  FakeSocket.last.accept();
  expect(now()).toEqual({ at: "open" });
});

test("it is given up after a few attempts in a row, and a connection that held counts them anew", async () => {
  const { connection, ask, now } = made(good);
  connection.start();
  await soon();
  FakeSocket.last.accept();
  await vi.advanceTimersByTimeAsync(11_000);
  FakeSocket.last.breaks();
  for (const delay of delaysMs) {
    expect(now()?.at).toBe("waiting");
    await vi.advanceTimersByTimeAsync(delay);
    if (FakeSocket.last.readyState !== FakeSocket.CLOSED) FakeSocket.last.breaks();
  }
  await vi.advanceTimersByTimeAsync(120_000);
  expect(now()).toEqual({ at: "ended", reason: "the connection is lost, and trying again did not help" });
  expect(ask.mock.calls.length).toBe(1 + delaysMs.length);
});

test("a console that the server ended stays ended, with the reason", async () => {
  const { connection, ask, now } = made(good);
  connection.start();
  await soon();
  FakeSocket.last.accept();
  FakeSocket.last.says({ event: "ended", reason: "the guest has ended" });
  FakeSocket.last.close(1000, "the guest has ended");
  expect(now()).toEqual({ at: "ended", reason: "the guest has ended" });
  await vi.advanceTimersByTimeAsync(120_000);
  expect(ask).toHaveBeenCalledTimes(1);
});

test("the reason of a close frame alone is enough", async () => {
  const { connection, now } = made(good);
  connection.start();
  await soon();
  FakeSocket.last.accept();
  FakeSocket.last.close(1000, "nothing was typed or printed for 1800 s");
  expect(now()).toEqual({ at: "ended", reason: "nothing was typed or printed for 1800 s" });
});

test("a refusal that stays is not asked again, one that passes is", async () => {
  const refusal = (status: number) => new ApiError(status, { code: "x", detail: "web.0 is stopped" });
  const stopped = made(async () => {
    throw refusal(409);
  });
  stopped.connection.start();
  await soon();
  expect(stopped.now()).toEqual({ at: "ended", reason: "web.0 is stopped" });
  const busy = made(async () => {
    throw refusal(503);
  });
  busy.connection.start();
  await soon();
  expect(busy.now()?.at).toBe("waiting");
  busy.connection.stop();
});

test("what belongs to a connection that was left is not heard", async () => {
  const { connection, told, ask } = made(good);
  connection.start();
  await soon();
  const left = FakeSocket.last;
  left.accept();
  connection.stop();
  left.says({ event: "writer" });
  expect(told.events).toEqual([]);
  expect(told.phases.at(-1)).toEqual({ at: "idle" });
  await vi.advanceTimersByTimeAsync(120_000);
  expect(ask).toHaveBeenCalledTimes(1);
});

test("the keyboard is taken once, and not again after a break", async () => {
  const { connection, ask } = made(good);
  connection.start({ take: true });
  await soon();
  FakeSocket.last.accept();
  FakeSocket.last.breaks();
  await vi.advanceTimersByTimeAsync(delaysMs[0] ?? 0);
  expect(ask.mock.calls.map(([wish]) => wish.take)).toEqual([true, false]);
});

test("what the server sends that is no event is left alone", async () => {
  const { connection, told } = made(good);
  connection.start();
  await soon();
  FakeSocket.last.accept();
  FakeSocket.last.says("bytes of the terminal");
  FakeSocket.last.dispatchEvent(new MessageEvent("message", { data: "not json" }));
  expect(told.events).toEqual([]);
});
