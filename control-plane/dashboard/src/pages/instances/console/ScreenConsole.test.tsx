import { act, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Instance } from "../../../api/instances.ts";
import { fakeApi, show } from "../../../testing/pages.tsx";
import { FakeSocket, fakeSockets } from "../../../testing/sockets.ts";
import ScreenConsole from "./ScreenConsole.tsx";

/** noVNC draws in a browser only. Here it is what was asked of it. */
const made = vi.hoisted(() => [] as { socket: unknown; scaleViewport: boolean; did: unknown[] }[]);
vi.mock("@novnc/novnc", () => ({
  default: class extends EventTarget {
    did: unknown[] = [];
    scaleViewport = false;
    background = "";
    socket: unknown;
    constructor(_target: HTMLElement, socket: unknown) {
      super();
      this.socket = socket;
      made.push(this);
    }
    focus() {}
    disconnect() {}
    sendCtrlAltDel() {
      this.did.push("ctrl-alt-del");
    }
    sendKey(keysym: number, _code: string | null, down?: boolean) {
      this.did.push(down === undefined ? keysym : [keysym, down]);
    }
  },
}));

const instance = {
  id: "i-1",
  name: "web.0",
  project: "shop",
  state: "running",
  steps: { started_at: "10:00" },
} as unknown as Instance;

beforeEach(() => {
  fakeSockets();
  made.length = 0;
});
afterEach(() => vi.unstubAllGlobals());

async function opened() {
  const calls = fakeApi({ "POST /v1/instances/i-1/console": { url: "/v1/consoles?ticket=t", protocol: "vnc" } });
  const drawn = show(<ScreenConsole instance={instance} />);
  await waitFor(() => expect(made.length).toBe(1));
  act(() => FakeSocket.last.accept());
  await screen.findByText("Connected. Keys and mouse go to the guest.");
  return { ...drawn, calls };
}

test("the screen is opened scaled to what room there is, before the first byte can come", async () => {
  const { calls } = await opened();
  expect(calls[0]?.body).toEqual({ kind: "vnc" });
  expect(made[0]?.socket).toBe(FakeSocket.last);
  expect(made[0]?.scaleViewport).toBe(true);
});

test("Ctrl-Alt-Del is a button, because a browser keeps these keys", async () => {
  const { user } = await opened();
  await user.click(screen.getByRole("button", { name: "Ctrl-Alt-Del" }));
  expect(made[0]?.did).toEqual(["ctrl-alt-del"]);
});

test("a text is pasted as keys, and one that the keyboard does not have is refused", async () => {
  const { user } = await opened();
  await user.click(screen.getByRole("button", { name: "Paste" }));
  const text = await screen.findByRole("textbox", { name: "Text" });
  await user.type(text, "ë");
  expect(screen.getByRole("button", { name: "Type it" })).toHaveProperty("disabled", true);
  await user.clear(text);
  await user.type(text, "aB");
  await user.click(screen.getByRole("button", { name: "Type it" }));
  expect(made[0]?.did).toEqual([0x61, [0xffe1, true], 0x42, [0xffe1, false]]);
});

test("a long text is typed in steps that the guest can follow, and can be stopped", async () => {
  const { user } = await opened();
  const paste = async (letters: string) => {
    await user.click(screen.getByRole("button", { name: "Paste" }));
    await user.click(await screen.findByRole("textbox", { name: "Text" }));
    await user.paste(letters);
    await user.click(screen.getByRole("button", { name: "Type it" }));
  };
  await paste("abcdefg");
  expect(made[0]?.did.length).toBe(5);
  await waitFor(() => expect(made[0]?.did.length).toBe(7));
  await paste("x".repeat(1000));
  await user.click(await screen.findByRole("button", { name: /^Stop typing/ }));
  expect(screen.queryByRole("button", { name: /^Stop typing/ })).toBeNull();
  expect(made[0]?.did.length).toBeLessThan(500);
});

test("after a break there is a new screen on a new connection", async () => {
  const { user } = await opened();
  act(() => FakeSocket.last.breaks());
  await user.click(await screen.findByRole("button", { name: "Try now" }));
  await waitFor(() => expect(made.length).toBe(2));
  expect(made[1]?.socket).toBe(FakeSocket.last);
});
