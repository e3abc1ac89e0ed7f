/**
 * A connection to a console: asks for a ticket, opens it as a WebSocket, and does so again after a break.
 *
 *     opening --> open --> ended          the server said why, or the console cannot be opened at all
 *        ^          |
 *        +-- waiting <-- a break          with a new ticket each time, a few times in a row at most
 *
 * It knows nothing of terminals and screens. Tested in connection.test.ts.
 */
import { ApiError } from "../../../api/client.ts";
import type { ConsoleEvent } from "../../../api/consoles.ts";

/** How it stands with a connection. */
export type Phase =
  | { at: "idle" }
  | { at: "opening"; attempt: number }
  | { at: "open" }
  | { at: "waiting"; attempt: number; delayMs: number }
  | { at: "ended"; reason: string };

export interface Wish {
  /** Type from now on, although somebody else does. */
  take: boolean;
}

export interface Ways {
  /** Asks for a ticket. Answers the address that it opens. */
  ticket: (wish: Wish) => Promise<{ url: string }>;
  onPhase: (phase: Phase) => void;
  /** A new connection begins. It is not open yet. */
  onSocket: (socket: WebSocket) => void;
  onEvent: (event: ConsoleEvent) => void;
}

/** The waits before each further attempt. After the last one it is given up. */
export const delaysMs: readonly number[] = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000];
/** The largest message to the guest. */
const messageBytes = 16 * 1024;
/** A connection that lasted so long was a good one: the attempts are counted anew. */
const goodMs = 10_000;

export class ConsoleConnection {
  readonly #ways: Ways;
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Raised by each start and stop, so that what belongs to an older connection is left alone. */
  #run = 0;
  #attempt = 0;
  #take = false;

  constructor(ways: Ways) {
    this.#ways = ways;
  }

  /** Opens it, also while it is open: then it is closed before. */
  start(wish: Wish = { take: false }): void {
    this.#leave();
    this.#attempt = 0;
    this.#take = wish.take;
    void this.#open(this.#run);
  }

  /** Closes it. Nothing is told any more. */
  stop(): void {
    this.#leave();
    this.#ways.onPhase({ at: "idle" });
  }

  /** Sends bytes, if it is open. A large paste goes in several messages, because the node takes none over 1 MiB. */
  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (let at = 0; at < bytes.length; at += messageBytes) this.#socket.send(bytes.subarray(at, at + messageBytes));
  }

  #leave(): void {
    this.#run += 1;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #open(run: number): Promise<void> {
    this.#attempt += 1;
    this.#ways.onPhase({ at: "opening", attempt: this.#attempt });
    let url: string;
    try {
      ({ url } = await this.#ways.ticket({ take: this.#take }));
    } catch (error) {
      if (run !== this.#run) return;
      if (isFinal(error)) this.#end((error as ApiError).detail);
      else this.#again(run, error instanceof ApiError ? error.detail : undefined);
      return;
    }
    if (run === this.#run) this.#connect(run, url);
  }

  #connect(run: number, path: string): void {
    const url = new URL(path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let openedAt: number | undefined;
    let reason: string | undefined;
    socket.addEventListener("open", () => {
      if (run !== this.#run) return;
      openedAt = Date.now();
      // Whoever takes the keyboard later is not pushed aside when this connection breaks.
      this.#take = false;
      this.#ways.onPhase({ at: "open" });
    });
    socket.addEventListener("message", ({ data }) => {
      if (run !== this.#run || typeof data !== "string") return;
      const event = eventOf(data);
      if (event?.event === "ended") reason = event.reason;
      if (event !== undefined) this.#ways.onEvent(event);
    });
    socket.addEventListener("close", (closed) => {
      if (run !== this.#run) return;
      this.#socket = undefined;
      const said = reason ?? (closed.code === 1000 && closed.reason !== "" ? closed.reason : undefined);
      if (said !== undefined) {
        this.#end(said);
        return;
      }
      if (openedAt !== undefined && Date.now() - openedAt >= goodMs) this.#attempt = 1;
      this.#again(run);
    });
    this.#ways.onSocket(socket);
  }

  #end(reason: string): void {
    this.#run += 1;
    this.#ways.onPhase({ at: "ended", reason });
  }

  /** After a break: tries again a little later, or gives up, with what the controller said last. */
  #again(run: number, said?: string): void {
    const delayMs = delaysMs[this.#attempt - 1];
    if (delayMs === undefined) {
      this.#end(said ?? "the connection is lost, and trying again did not help");
      return;
    }
    this.#ways.onPhase({ at: "waiting", attempt: this.#attempt, delayMs });
    this.#timer = setTimeout(() => void this.#open(run), delayMs);
  }
}

/** Whether asking again cannot help: the guest does not run, it is gone, or the caller may not. */
function isFinal(error: unknown): boolean {
  return error instanceof ApiError && [400, 401, 403, 404, 409, 422, 501].includes(error.status);
}

/** Reads a text message. What is no event is left alone. */
function eventOf(text: string): ConsoleEvent | undefined {
  try {
    const event: unknown = JSON.parse(text);
    return typeof event === "object" && event !== null && "event" in event ? (event as ConsoleEvent) : undefined;
  } catch {
    return undefined;
  }
}
