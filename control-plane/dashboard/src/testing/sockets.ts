/** A WebSocket for tests, whose other end is played by the test. */
import { vi } from "vitest";

export class FakeSocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;
  /** All that were made, oldest first. */
  static made: FakeSocket[] = [];

  readonly url: string;
  readonly sent: Uint8Array[] = [];
  binaryType = "blob";
  readyState = FakeSocket.CONNECTING;

  constructor(url: string | URL) {
    super();
    this.url = String(url);
    FakeSocket.made.push(this);
  }

  static get last(): FakeSocket {
    const last = FakeSocket.made.at(-1);
    if (last === undefined) throw new Error("no WebSocket was opened");
    return last;
  }

  send(bytes: Uint8Array): void {
    this.sent.push(bytes);
  }

  /** What was sent, as text. */
  get text(): string {
    return this.sent.map((bytes) => new TextDecoder().decode(bytes)).join("");
  }

  close(code = 1005, reason = ""): void {
    if (this.readyState === FakeSocket.CLOSED) return;
    this.readyState = FakeSocket.CLOSED;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }

  // What the other end does.
  accept(): void {
    this.readyState = FakeSocket.OPEN;
    this.dispatchEvent(new Event("open"));
  }

  says(message: string | object): void {
    const data = typeof message === "string" ? new TextEncoder().encode(message).buffer : JSON.stringify(message);
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  breaks(): void {
    this.close(1006);
  }
}

/** Replaces WebSocket until the stubs are taken back. */
export function fakeSockets(): void {
  FakeSocket.made = [];
  vi.stubGlobal("WebSocket", FakeSocket);
}
