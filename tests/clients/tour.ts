// The tour of a client that openapi-typescript and openapi-fetch make of /openapi.json: deploy, wait, snapshot, an error,
// delete. Environment: MUSTER_URL, MUSTER_TOKEN and NODE_EXTRA_CA_CERTS (a file).

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Operation = components["schemas"]["Operation"];
type Problem = components["schemas"]["Problem"];
type Answer<T> = { data?: T; error?: Problem; response: Response };

const CONTENT = Buffer.from(Array.from({ length: 1 << 20 }, (_, n) => n % 251));

const api = createClient<paths>({
  baseUrl: process.env.MUSTER_URL,
  headers: { Authorization: `Bearer ${process.env.MUSTER_TOKEN}` },
});

/** What a call answered that must have succeeded. */
function got<T>(answer: Answer<T>): NonNullable<T> {
  assert.ok(answer.data, `${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

/** The problem of a call that must have been refused with this code. */
function refused(code: Problem["code"], answer: Answer<unknown>): Problem {
  assert.ok(answer.error, `expected ${code}, got ${answer.response.status}`);
  assert.equal(answer.error.code, code);
  assert.equal(answer.response.headers.get("content-type"), "application/problem+json");
  return answer.error;
}

/** Waits until the work that an answer began has succeeded. */
async function done(answer: Answer<unknown>): Promise<void> {
  let operation = got(answer) as Operation;
  assert.equal(answer.response.status, 202);
  while (operation.finished_at === null) {
    const params = { path: { operation: operation.id }, query: { wait: "30s" } };
    operation = got(await api.GET("/v1/operations/{operation}", { params }));
  }
  assert.equal(operation.state, "succeeded", JSON.stringify(operation));
}

const base = got(await api.POST("/v1/images", { body: { name: "ts-base" } }));
assert.equal(base.newest_version, null);
const version = got(
  await api.PUT("/v1/images/{image}/content", {
    params: { path: { image: "ts-base" } },
    headers: { "Content-Type": "application/octet-stream" },
    // The generator gives bytes the type of text.
    body: CONTENT as unknown as string,
    bodySerializer: (body) => body as unknown as Uint8Array<ArrayBuffer>,
  }),
);
assert.equal(version.size_bytes, CONTENT.length);

const web = { path: { deployment: "ts-web" } };
await done(
  await api.POST("/v1/deployments", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { name: "ts-web", source: { image: "ts-base" }, count: 2, runtime: "none", labels: { a: "b" } },
  }),
);
const deployment = got(await api.GET("/v1/deployments/{deployment}", { params: web }));
assert.deepEqual([deployment.state, deployment.ready, deployment.labels], ["ready", 2, { a: "b" }]);
const patched = await api.PATCH("/v1/deployments/{deployment}", {
  params: { ...web, header: { "If-Match": deployment.etag } },
  body: { labels: { a: "c" } },
});
assert.deepEqual(got(patched).labels, { a: "c" });
const members = got(
  await api.GET("/v1/instances", { params: { query: { deployment: ["ts-web"], state: ["running"], limit: 1 } } }),
);
assert.equal(members.items.length, 1);
assert.ok(members.next_page_token);

await done(await api.POST("/v1/snapshots", { body: { name: "ts-monday", select: { deployment: "ts-web" } } }));
const monday = { path: { snapshot: "ts-monday" } };
const snapshot = got(await api.GET("/v1/snapshots/{snapshot}", { params: monday }));
assert.deepEqual([snapshot.state, snapshot.members], ["ready", 2]);

const events = got(await api.GET("/v1/events", { headers: { Accept: "application/json" }, params: { query: { limit: 3 } } }));
assert.ok(typeof events !== "string" && events.items.length === 3);

const nobody = { path: { deployment: "nobody" } };
refused("not_found", await api.GET("/v1/deployments/{deployment}", { params: nobody }));
const taken = refused("name_taken", await api.POST("/v1/images", { body: { name: "ts-base" } }));
assert.equal(taken.existing, base.id);
refused("not_built_yet", await api.GET("/v1/projects"));

await done(await api.DELETE("/v1/snapshots/{snapshot}", { params: monday }));
await done(await api.DELETE("/v1/deployments/{deployment}", { params: web }));
refused("not_found", await api.GET("/v1/deployments/{deployment}", { params: web }));
