import { api } from "./client.ts";

/** What one signs in with: a token, or the code of a sign-in link, which is valid once. */
export type Credential = { token: string } | { code: string };

/** Turns a token or a code into a session, which the browser keeps as a cookie that scripts cannot read. */
export async function beginSession(credential: Credential): Promise<void> {
  await api.POST("/v1/session", { body: credential as never });
}

/** Ends the session of this browser. */
export async function endSession(): Promise<void> {
  await api.DELETE("/v1/session");
}
