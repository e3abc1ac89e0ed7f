/** What tests of pages need: a controller that answers from a list, and the frame in which pages expect to be drawn. */
import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import {
  createMemoryHistory,
  createRootRoute,
  createRoute,
  createRouter,
  RouterProvider,
} from "@tanstack/react-router";
import { render } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { type ReactElement, Suspense } from "react";
import { vi } from "vitest";
import { parseSearch, stringifySearch } from "../ui/search-state.ts";

export interface Asked {
  method: string;
  path: string;
  query: string;
  headers: Headers;
  body: unknown;
}

type Answer = unknown | ((asked: Asked) => unknown);

/** An answer that is no success. */
export const problem = (status: number, fields: Record<string, unknown>) =>
  Response.json({ status, ...fields }, { status });

/** A list as the API answers it. */
export const list = (...items: unknown[]) => ({ items, as_of: "0" });

/**
 * Answers calls by `METHOD /path`, without the query. A function is asked anew each time. What is not named is not found.
 * The calls so far are in the array that it gives back.
 */
export function fakeApi(answers: Record<string, Answer>): Asked[] {
  const calls: Asked[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    const text = init.body instanceof Blob ? await init.body.text() : "";
    const asked: Asked = {
      method: init.method ?? "GET",
      path: url.pathname,
      query: url.searchParams.toString(),
      headers: new Headers(init.headers),
      body: text === "" ? undefined : JSON.parse(text),
    };
    calls.push(asked);
    const answer = answers[`${asked.method} ${asked.path}`];
    const given = typeof answer === "function" ? await answer(asked) : answer;
    if (given instanceof Response) return given;
    return given === undefined ? problem(404, { code: "not_found", detail: asked.path }) : Response.json(given);
  });
  return calls;
}

/** Draws a part of a page at an address. */
export function show(element: ReactElement, at = "/") {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  const root = createRootRoute({ component: () => element });
  const router = createRouter({
    routeTree: root.addChildren([createRoute({ getParentRoute: () => root, path: "/$" })]),
    history: createMemoryHistory({ initialEntries: [at] }),
    parseSearch,
    stringifySearch,
  });
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={client}>
        <Suspense>
          <RouterProvider router={router as never} />
        </Suspense>
      </QueryClientProvider>
    </MantineProvider>,
  );
  return { client, router, user: userEvent.setup() };
}
