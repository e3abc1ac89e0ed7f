/**
 * The typed client of the REST API. Every call goes through here, so every call
 *
 * - names the project it is about (see scope.ts),
 * - carries an `Idempotency-Key` if it changes something, and is repeated with that key when the network or a busy
 *   controller gets in the way, which is harmless because of the key,
 * - throws an {@link ApiError} unless the answer is a success.
 */
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.gen.ts";
import { projectFor } from "./scope.ts";

/** The types of the API by name: `Schemas["Deployment"]`. */
export type Schemas = components["schemas"];

/** What an answer with an error says, as fields that pages show. */
export class ApiError extends Error {
  /** HTTP status, or 0 when no answer came. */
  readonly status: number;
  /** The stable word for programs, such as `name_taken`; `no_answer` when no answer came. */
  readonly code: string;
  /** What is wrong and what to do about it, for people. */
  readonly detail: string;
  readonly request_id: string | undefined;
  /** The parts of the request that are wrong. */
  readonly errors: Schemas["FieldError"][];
  /** The whole body. It has further fields, which depend on the code: `existing`, `operation`, `reasons`, … */
  readonly problem: Record<string, unknown>;

  constructor(status: number, problem: Record<string, unknown>) {
    const detail = typeof problem.detail === "string" ? problem.detail : `the controller answered ${status}`;
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.code = typeof problem.code === "string" ? problem.code : "unknown";
    this.detail = detail;
    this.request_id = typeof problem.request_id === "string" ? problem.request_id : undefined;
    this.errors = Array.isArray(problem.errors) ? (problem.errors as Schemas["FieldError"][]) : [];
    this.problem = problem;
  }

  /** The error for an answer that is not a success. */
  static async from(response: Response): Promise<ApiError> {
    const fallback = { request_id: response.headers.get("x-request-id") ?? undefined };
    try {
      const body: unknown = await response.json();
      if (body !== null && typeof body === "object") return new ApiError(response.status, { ...fallback, ...body });
    } catch {
      // A proxy in between answers in its own words.
    }
    return new ApiError(response.status, fallback);
  }

  /** The error for a call that got no answer at all. */
  static noAnswer(): ApiError {
    return new ApiError(0, {
      code: "no_answer",
      detail: "The controller does not answer. Check that it runs and that this machine reaches it.",
    });
  }
}

const changes = new Set(["POST", "PUT", "PATCH", "DELETE"]);
const attempts = 3;

/** Random, and made without `crypto.randomUUID`, which browsers offer only where the page came by TLS. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** How long to wait before the next attempt, or null if the answer is final. */
export function retryDelayMs(status: number, retryAfter: string | null, attempt: number): number | null {
  if (attempt >= attempts || (status !== 0 && status !== 429 && status !== 503)) return null;
  const asked = retryAfter === null ? Number.NaN : Number(retryAfter);
  return Number.isFinite(asked) && asked >= 0 ? Math.min(asked, 10) * 1000 : 300 * 2 ** attempt;
}

// Which path of the document a request is for. Only the middleware is told.
const pathOf = new WeakMap<Request, string>();

async function send(request: Request): Promise<Response> {
  const path = pathOf.get(request) ?? "";
  const url = new URL(request.url);
  if (!url.searchParams.has("project")) {
    const project = projectFor(request.method, path);
    if (project !== undefined) url.searchParams.set("project", project);
  }
  const headers = new Headers(request.headers);
  // Signing in takes no key: a repeated call begins another session.
  const signsIn = request.method === "POST" && path === "/v1/session";
  const repeatable = changes.has(request.method) && !signsIn;
  if (repeatable) headers.set("Idempotency-Key", newKey());
  // Not the request itself: a browser sends the body of a copied request as a stream, which HTTP/1.1 does not have.
  const payload = request.body === null ? null : await request.blob();
  const init: RequestInit = { method: request.method, headers, body: payload, signal: request.signal };
  for (let attempt = 1; ; attempt += 1) {
    let response: Response | undefined;
    try {
      response = await fetch(url, init);
    } catch (error) {
      if (request.signal.aborted) throw error;
    }
    // Reads are retried by the query client, which shows meanwhile what it has.
    const wait = repeatable
      ? retryDelayMs(response?.status ?? 0, response?.headers.get("retry-after") ?? null, attempt)
      : null;
    if (wait === null) {
      if (response === undefined) throw ApiError.noAnswer();
      return response;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

const everyCall: Middleware = {
  onRequest({ request, schemaPath }) {
    pathOf.set(request, schemaPath);
  },
  async onResponse({ response }) {
    if (!response.ok) throw await ApiError.from(response);
  },
};

export const api = createClient<paths>({ baseUrl: "/", fetch: send });
api.use(everyCall);

/** The body of a successful answer. */
export async function body<T>(call: Promise<{ data?: T }>): Promise<NonNullable<T>> {
  const { data } = await call;
  if (data === undefined || data === null) throw new ApiError(200, { detail: "the answer has no body" });
  return data;
}

/** A list of values as the API wants it in a query: repeated, and left out when empty. */
export function oneOf<T extends string>(values: readonly string[]): T[] | undefined {
  return values.length === 0 ? undefined : (values as T[]);
}
