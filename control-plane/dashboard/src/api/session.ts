import { useMutation } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery } from "./lists.ts";
import { refreshTokens } from "./tokens.ts";

export type Session = Schemas["Session"];
export type SignInLink = Schemas["SignInLink"];

/** What one signs in with: a token, or the code of a sign-in link, which is good once. */
export type Credential = { token: string } | { code: string };

/** Turns a token or a code into a session, which the browser keeps as a cookie that scripts cannot read. */
export async function beginSession(credential: Credential): Promise<void> {
  await api.POST("/v1/session", { body: credential });
}

/** Ends the session of this browser. */
export async function endSession(): Promise<void> {
  await api.DELETE("/v1/session");
}

/** Sessions that go on: all for operators, those of their own token for others. */
export const sessionsQuery = () =>
  listQuery<Session>("sessions", {}, (page, signal) =>
    body(api.GET("/v1/sessions", { params: { query: page }, signal })),
  );

/** Ends the session of some browser. */
export function useEndSession() {
  return useMutation({
    mutationFn: (session: string) => api.DELETE("/v1/sessions/{session}", { params: { path: { session } } }),
    onSuccess: refreshTokens,
  });
}

/** Makes a link that signs one browser in, once: as the token that is named, else as the caller. */
export function useMakeSignInLink() {
  return useMutation({
    mutationFn: (token?: string) => body(api.POST("/v1/session/link", { body: token === undefined ? {} : { token } })),
  });
}

/** The whole address of a sign-in link. The page one is on knows where the controller is reached. */
export function addressOf(link: Pick<SignInLink, "path">): string {
  return new URL(link.path, location.origin).href;
}
