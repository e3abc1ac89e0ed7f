import { act, renderHook, waitFor } from "@testing-library/react";
import { beforeEach, expect, test, vi } from "vitest";
import { followConsole, type Instance, readConsole } from "../../../api/instances.ts";
import { useConsole } from "./useConsole.ts";

vi.mock("../../../api/instances.ts", () => ({ followConsole: vi.fn(), readConsole: vi.fn() }));
const read = vi.mocked(readConsole);
const open = vi.mocked(followConsole);

const instance = (etag: string, state = "running") => ({ id: "i-1", etag, state }) as unknown as Instance;

/** What a terminal would show. */
function screen() {
  const text = { shown: "", resets: 0 };
  const sink = {
    write: (more: string) => {
      text.shown += more;
    },
    reset: () => {
      text.shown = "";
      text.resets += 1;
    },
  };
  return { text, sink };
}

beforeEach(() => {
  read.mockReset();
  open.mockReset();
});

test("where output cannot be followed, only what was added is written after the instance changed", async () => {
  const { text, sink } = screen();
  open.mockResolvedValue(null);
  read.mockResolvedValueOnce("boot 1\r\n").mockResolvedValueOnce("boot 1\r\nready\r\n");
  const { result, rerender } = renderHook(({ etag }) => useConsole(instance(etag), "64KiB", true, sink), {
    initialProps: { etag: "1" },
  });
  await waitFor(() => expect(result.current).toEqual({ how: "repeated", empty: false }));
  rerender({ etag: "2" });
  await waitFor(() => expect(text).toEqual({ shown: "boot 1\r\nready\r\n", resets: 1 }));
  expect(open).toHaveBeenCalledTimes(1);
});

test("a stream is shown as it comes, with letters that are split between two parts", async () => {
  const { text, sink } = screen();
  let send: (bytes: number[]) => void = () => {};
  open.mockResolvedValue(
    new ReadableStream({
      start: (controller) => {
        send = (bytes) => controller.enqueue(new Uint8Array(bytes));
      },
    }),
  );
  const { result } = renderHook(() => useConsole(instance("1"), "64KiB", true, sink));
  await waitFor(() => expect(result.current).toEqual({ how: "live", empty: true }));
  act(() => send([0x68, 0xc3]));
  await waitFor(() => expect(text.shown).toBe("h"));
  act(() => send([0xa9]));
  await waitFor(() => expect(text.shown).toBe("hé"));
  expect(result.current).toEqual({ how: "live", empty: false });
  expect(read).not.toHaveBeenCalled();
});

test("a stream that ended with its instance is opened again once the instance changes, and not before", async () => {
  const { text, sink } = screen();
  const ended = (words: string) => new Response(words).body as ReadableStream<Uint8Array>;
  open.mockResolvedValueOnce(ended("bye\r\n")).mockResolvedValueOnce(ended("bye\r\nhello\r\n"));
  const { result, rerender } = renderHook(({ etag }) => useConsole(instance(etag, "stopped"), "64KiB", true, sink), {
    initialProps: { etag: "1" },
  });
  await waitFor(() => expect(result.current).toEqual({ how: "repeated", empty: false }));
  expect(open).toHaveBeenCalledTimes(1);
  rerender({ etag: "2" });
  await waitFor(() => expect(text.shown).toBe("bye\r\nhello\r\n"));
});

test("a failed reading leaves what is shown, and says why", async () => {
  const { text, sink } = screen();
  open.mockResolvedValue(null);
  read.mockResolvedValueOnce("boot 1\r\n").mockRejectedValueOnce(new Error("the node does not answer"));
  const { result, rerender } = renderHook(({ etag }) => useConsole(instance(etag), "64KiB", true, sink), {
    initialProps: { etag: "1" },
  });
  await waitFor(() => expect(text.shown).toBe("boot 1\r\n"));
  rerender({ etag: "2" });
  await waitFor(() => expect(result.current.error).toBeInstanceOf(Error));
  expect(result.current.empty).toBe(false);
  expect(text.shown).toBe("boot 1\r\n");
});

test("what is not followed is read once", async () => {
  const { text, sink } = screen();
  read.mockResolvedValue("boot 1\r\n");
  const { result, rerender } = renderHook(({ etag }) => useConsole(instance(etag), "64KiB", false, sink), {
    initialProps: { etag: "1" },
  });
  await waitFor(() => expect(result.current.how).toBe("paused"));
  rerender({ etag: "2" });
  expect(text.shown).toBe("boot 1\r\n");
  expect(read).toHaveBeenCalledTimes(1);
  expect(open).not.toHaveBeenCalled();
});
