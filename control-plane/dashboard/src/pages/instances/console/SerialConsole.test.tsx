import { act, screen, waitFor } from "@testing-library/react";
import { useState } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Instance } from "../../../api/instances.ts";
import { fakeApi, problem, show } from "../../../testing/pages.tsx";
import { FakeSocket, fakeSockets } from "../../../testing/sockets.ts";
import SerialConsole from "./SerialConsole.tsx";

/** The terminal is drawn by a browser only. Here it is what it shows, and what is typed into it. */
const terminal = vi.hoisted(() => ({
  text: "",
  type: (_text: string) => {},
  resize: (_columns: number, _rows: number) => {},
  leave: () => {},
}));
vi.mock("./serial-terminal.ts", async (original) => ({
  ...(await original<typeof import("./serial-terminal.ts")>()),
  SerialTerminal: class {
    constructor(
      _box: HTMLElement,
      ways: {
        onInput: (bytes: Uint8Array) => void;
        onResize: (size: { columns: number; rows: number }) => void;
        onLeave: () => void;
      },
    ) {
      terminal.text = "";
      terminal.type = (text) => ways.onInput(new TextEncoder().encode(text));
      terminal.resize = (columns, rows) => ways.onResize({ columns, rows });
      terminal.leave = ways.onLeave;
      ways.onResize({ columns: 80, rows: 24 });
    }
    write(bytes: Uint8Array) {
      terminal.text += new TextDecoder().decode(bytes);
    }
    reset() {
      terminal.text = "";
    }
    focus() {}
    setScheme() {}
    dispose() {}
  },
}));

const instance = (state: string, started_at: string) =>
  ({ id: "i-1", name: "web.0", project: "shop", state, steps: { started_at } }) as unknown as Instance;
const call = "POST /v1/instances/i-1/console";
let setState: (state: string) => void;
let setStart: (time: string) => void;

function Shown({ start }: { start: string }) {
  const [state, set] = useState(start);
  setState = set;
  const [time, setTime] = useState("10:00");
  setStart = setTime;
  return <SerialConsole instance={instance(state, time)} />;
}

beforeEach(fakeSockets);
afterEach(() => vi.unstubAllGlobals());

/** Opens the console as far as the other end says it should go. */
async function opened(...said: (string | object)[]) {
  let tickets = 0;
  const calls = fakeApi({
    [call]: () => {
      tickets += 1;
      return { url: `/v1/consoles?ticket=t${tickets}`, protocol: "serial", expires_at: "" };
    },
  });
  const drawn = show(<Shown start="running" />);
  await waitFor(() => expect(FakeSocket.made.length).toBe(1));
  act(() => {
    FakeSocket.last.accept();
    for (const each of said) FakeSocket.last.says(each);
  });
  return { ...drawn, calls };
}

test("what is typed goes to the guest, and what it answers is shown", async () => {
  await opened({ event: "writer" }, "login: ");
  expect(await screen.findByText("Connected. You may type.")).toBeTruthy();
  act(() => terminal.type("root\r"));
  expect(FakeSocket.last.text).toBe("root\r");
  act(() => FakeSocket.last.says("Password: "));
  expect(terminal.text).toBe("login: Password: ");
});

test("while somebody else types nothing is sent, until the keyboard is taken", async () => {
  const { user, calls } = await opened({ event: "reader", reason: "someone else types" });
  expect(await screen.findByText("Only watching: someone else types.")).toBeTruthy();
  act(() => terminal.type("rm -rf /\r"));
  expect(FakeSocket.last.text).toBe("");
  await user.click(screen.getByRole("button", { name: "Take the keyboard" }));
  await waitFor(() => expect(FakeSocket.made.length).toBe(2));
  expect(calls.filter(({ method }) => method === "POST").map(({ body }) => body)).toEqual([
    { kind: "serial" },
    { kind: "serial", take: true },
  ]);
  act(() => {
    FakeSocket.last.accept();
    FakeSocket.last.says({ event: "writer" });
  });
  expect(await screen.findByText("Connected. You may type.")).toBeTruthy();
});

test("the guest is told the size of the window when somebody asks for that, and again after it changed", async () => {
  const { user } = await opened({ event: "writer" });
  await user.click(await screen.findByRole("button", { name: "Tell the guest the size" }));
  expect(FakeSocket.last.text).toBe("stty rows 24 cols 80\r");
  expect(screen.queryByRole("button", { name: "Tell the guest the size" })).toBeNull();
  act(() => terminal.resize(132, 43));
  await user.click(await screen.findByRole("button", { name: "Tell the guest the size" }));
  expect(FakeSocket.last.text).toBe("stty rows 24 cols 80\rstty rows 43 cols 132\r");
});

test("output that was left out is told", async () => {
  await opened({ event: "writer" }, { event: "skipped", bytes: 2048 });
  expect(await screen.findByText(/^2 KiB were left out/)).toBeTruthy();
});

test("a guest that ended is not opened again by itself, but when it runs again", async () => {
  const { calls } = await opened({ event: "writer" }, "bye");
  act(() => {
    FakeSocket.last.says({ event: "ended", reason: "the guest has ended" });
    FakeSocket.last.close(1000, "the guest has ended");
  });
  expect(await screen.findByText("Closed: the guest has ended.")).toBeTruthy();
  expect(screen.getByRole("button", { name: "Open it again" })).toBeTruthy();
  act(() => setState("stopped"));
  expect(await screen.findByText(/^It is stopped\./)).toBeTruthy();
  expect(terminal.text).toBe("bye");
  expect(calls.length).toBe(1);
  act(() => setState("running"));
  await waitFor(() => expect(FakeSocket.made.length).toBe(2));
});

test("a guest whose power was cut and that was started again has its console back", async () => {
  await opened({ event: "writer" });
  // Nothing happens to an open one.
  act(() => setStart("11:00"));
  expect(FakeSocket.made.length).toBe(1);
  act(() => FakeSocket.last.close(1000, "the guest has ended"));
  expect(await screen.findByText("Closed: the guest has ended.")).toBeTruthy();
  act(() => setStart("12:00"));
  await waitFor(() => expect(FakeSocket.made.length).toBe(2));
});

test("a broken connection is told, and tried at once if somebody asks for that", async () => {
  const { user } = await opened({ event: "writer" }, "old");
  act(() => FakeSocket.last.breaks());
  expect(await screen.findByText(/^The connection broke\. It is tried again in 1 s/)).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Try now" }));
  await waitFor(() => expect(FakeSocket.made.length).toBe(2));
  // It begins with the end of what was printed, so that nothing stands there twice.
  act(() => FakeSocket.last.accept());
  expect(terminal.text).toBe("");
});

test("a refusal is told in the controller's words", async () => {
  fakeApi({ [call]: problem(403, { code: "forbidden", detail: "this token may only read" }) });
  show(<Shown start="running" />);
  expect(await screen.findByText("Closed: this token may only read.")).toBeTruthy();
  expect(FakeSocket.made).toEqual([]);
});

test("the console is closed with its guest, and the leave key gives the keyboard back to the page", async () => {
  await opened({ event: "writer" });
  act(() => terminal.leave());
  expect(document.activeElement?.textContent).toBe("Full screen");
  act(() => setState("stopped"));
  await waitFor(() => expect(FakeSocket.last.readyState).toBe(FakeSocket.CLOSED));
});
