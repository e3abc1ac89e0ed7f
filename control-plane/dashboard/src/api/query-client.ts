import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { ApiError } from "./client.ts";

/** Whether trying again can help: the controller was busy or did not answer. */
function mayPass(error: unknown): boolean {
  return !(error instanceof ApiError) || error.status === 0 || error.status === 429 || error.status >= 502;
}

let onSignedOut: (() => void) | undefined;

/** Says what to do when an answer shows that the session has ended. */
export function setOnSignedOut(handler: () => void): () => void {
  onSignedOut = handler;
  return () => {
    if (onSignedOut === handler) onSignedOut = undefined;
  };
}

function notice(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) onSignedOut?.();
}

/** Data is kept fresh by the stream of events, so nothing is polled and nothing is stale by age alone. */
export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: notice }),
  mutationCache: new MutationCache({ onError: notice }),
  defaultOptions: {
    queries: {
      staleTime: 60_000,
      gcTime: 10 * 60_000,
      refetchOnWindowFocus: false,
      retry: (failures, error) => failures < 3 && mayPass(error),
      retryDelay: (attempt) => Math.min(500 * 2 ** attempt, 5_000),
    },
    mutations: { retry: false },
  },
});
