import { expect, test } from "vitest";
import { MessageReader } from "./sse.ts";

test("messages come out whole however the text is cut", () => {
  const text = 'id: 1\r\ndata: {"a":1}\r\n\r\n: comment\n\nevent: reset\nid: 2\ndata: x\ndata:y\n\nid: 3\ndata: late';
  for (let size = 1; size < text.length; size += 1) {
    const reader = new MessageReader();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...reader.push(text.slice(at, at + size)));
    expect(found, `cut every ${size}`).toEqual([
      { name: "message", id: "1", data: '{"a":1}' },
      { name: "reset", id: "2", data: "x\ny" },
    ]);
  }
});
