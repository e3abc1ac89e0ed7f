import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ApiError } from "../../api/client.ts";
import { sendFile, uploadUrl } from "./upload.ts";

/** Stands for the browser's request; tests let it do what a controller would. */
class FakeRequest {
  static last: FakeRequest;
  upload: { onprogress?: (event: { loaded: number }) => void } = {};
  onload?: () => void;
  onerror?: () => void;
  onabort?: () => void;
  status = 0;
  responseText = "";
  sent: unknown;
  url = "";
  constructor() {
    FakeRequest.last = this;
  }
  open(_method: string, url: string) {
    this.url = url;
  }
  setRequestHeader() {}
  getResponseHeader() {
    return "request-1";
  }
  send(content: unknown) {
    this.sent = content;
  }
  abort() {
    this.onabort?.();
  }
  answer(status: number, text: string) {
    this.status = status;
    this.responseText = text;
    this.onload?.();
  }
}

const upload = { image: "debian", project: "default", file: new Blob(["bytes"]) };

describe("an upload", () => {
  beforeEach(() => vi.stubGlobal("XMLHttpRequest", FakeRequest));
  afterEach(() => vi.unstubAllGlobals());

  test("tells how much is sent, and gives the version", async () => {
    const sent: number[] = [];
    const done = sendFile(upload, (bytes) => sent.push(bytes), new AbortController().signal);
    FakeRequest.last.upload.onprogress?.({ loaded: 3 });
    FakeRequest.last.answer(201, '{"name":"debian@1"}');
    expect(await done).toEqual({ version: { name: "debian@1" }, isNew: true });
    expect(sent).toEqual([3]);
  });

  test("of bytes that are there already is no new version", async () => {
    const done = sendFile(upload, () => {}, new AbortController().signal);
    FakeRequest.last.answer(200, '{"name":"debian@1"}');
    expect((await done).isNew).toBe(false);
  });

  test("that is refused fails with the words of the API", async () => {
    const done = sendFile(upload, () => {}, new AbortController().signal);
    FakeRequest.last.answer(422, '{"code":"digest_mismatch","detail":"other bytes"}');
    await expect(done).rejects.toMatchObject({ status: 422, code: "digest_mismatch", detail: "other bytes" });
  });

  test("that a proxy answers in its own words fails with the status", async () => {
    const done = sendFile(upload, () => {}, new AbortController().signal);
    FakeRequest.last.answer(502, "<html>");
    await expect(done).rejects.toMatchObject({ status: 502, request_id: "request-1" });
  });

  test("whose connection breaks says so", async () => {
    const done = sendFile(upload, () => {}, new AbortController().signal);
    FakeRequest.last.onerror?.();
    await expect(done).rejects.toBeInstanceOf(ApiError);
  });

  test("ends when it is cancelled", async () => {
    const control = new AbortController();
    const done = sendFile(upload, () => {}, control.signal);
    control.abort();
    await expect(done).rejects.toMatchObject({ name: "AbortError" });
  });
});

test("the address of an upload names project, format and digest", () => {
  expect(uploadUrl({ image: "a/b", project: "p", format: "qcow2", sha256: "00" })).toBe(
    "/v1/images/a%2Fb/content?project=p&format=qcow2&sha256=00",
  );
});
