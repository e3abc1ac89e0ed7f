import { beforeEach, expect, test, vi } from "vitest";
import { ApiError, api, body, retryDelayMs } from "./client.ts";
import { setScope } from "./scope.ts";

interface Sent {
  url: URL;
  init: RequestInit;
}

/** Answers calls in turn, the last answer for ever, and keeps what was sent. */
function answering(...answers: (Response | Error)[]): Sent[] {
  const sent: Sent[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    sent.push({ url, init });
    const answer = answers[Math.min(sent.length, answers.length) - 1];
    if (answer instanceof Error || answer === undefined) throw answer;
    return answer.clone();
  });
  return sent;
}
const json = (value: unknown, status = 200, headers = {}) => Response.json(value, { status, headers });
const stop = () => api.POST("/v1/deployments/{deployment}/stop", { params: { path: { deployment: "web" } }, body: {} });

beforeEach(() => {
  vi.unstubAllGlobals();
  setScope(undefined, undefined);
});

test("a change carries a key, and a body that a browser can send with HTTP/1.1", async () => {
  const sent = answering(json({ id: "o" }, 202));
  await stop();
  expect(new Headers(sent[0]?.init.headers).get("Idempotency-Key")).toMatch(/^[0-9a-f]{32}$/);
  expect(new Headers(sent[0]?.init.headers).get("Content-Type")).toBe("application/json");
  expect(await (sent[0]?.init.body as Blob | undefined)?.text()).toBe("{}");
});

test("a change is repeated with its key after a loss and where the controller asks for it", async () => {
  const sent = answering(new TypeError("network"), json({}, 503, { "retry-after": "0" }), json({ id: "o" }, 202));
  await stop();
  expect(sent.length).toBe(3);
  expect(new Set(sent.map(({ init }) => new Headers(init.headers).get("Idempotency-Key"))).size).toBe(1);
});

test("signing in is not repeated and carries no key", async () => {
  const sent = answering(new TypeError("network"));
  await expect(api.POST("/v1/session", { body: { code: "c" } })).rejects.toMatchObject({
    code: "no_answer",
    status: 0,
  });
  expect(sent.length).toBe(1);
  expect(new Headers(sent[0]?.init.headers).has("Idempotency-Key")).toBe(false);
});

test("a refusal is an error with all that it says", async () => {
  const problem = { code: "busy", detail: "another operation runs", request_id: "r-1", operation: "o-1", status: 409 };
  answering(json(problem, 409));
  const error = await stop().catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(ApiError);
  expect(error).toMatchObject({ status: 409, code: "busy", detail: "another operation runs", request_id: "r-1" });
  expect((error as ApiError).problem.operation).toBe("o-1");
});

test("an answer of something else than the API is an error too", async () => {
  answering(new Response("<h1>bad gateway</h1>", { status: 502, headers: { "x-request-id": "r-2" } }));
  await expect(body(api.GET("/v1/me"))).rejects.toMatchObject({ status: 502, code: "unknown", request_id: "r-2" });
});

test("lists take the chosen project, single things and changes need one, and what is the cluster's names none", async () => {
  const sent = answering(json({ items: [], as_of: "" }));
  setScope("*", undefined);
  await api.GET("/v1/instances");
  await api.GET("/v1/instances/{instance}", { params: { path: { instance: "i" } } });
  await stop();
  setScope("*", "shop");
  await api.GET("/v1/instances/{instance}", { params: { path: { instance: "i" } } });
  await api.GET("/v1/nodes");
  await api.GET("/v1/instances", { params: { query: { project: "other" } } });
  setScope(undefined, undefined);
  await api.GET("/v1/instances");
  expect(sent.map(({ url }) => url.searchParams.get("project"))).toEqual([
    "*",
    "default",
    "default",
    "shop",
    null,
    "other",
    null,
  ]);
});

test("only a loss, 429 and 503 are tried again, three times in all, after what the controller asks for", () => {
  expect([409, 500, 502].map((status) => retryDelayMs(status, null, 1))).toEqual([null, null, null]);
  expect(retryDelayMs(0, null, 1)).toBe(600);
  expect(retryDelayMs(429, "2", 1)).toBe(2000);
  expect(retryDelayMs(503, "3600", 1)).toBe(10_000);
  expect(retryDelayMs(503, "0", 3)).toBeNull();
});
