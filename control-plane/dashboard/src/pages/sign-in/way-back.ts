/** Where one goes after signing in, and how a code comes out of the address. Pure; tested in way-back.test.ts. */

/**
 * The page one was on, if it is one of ours. An address in a link somebody sent must not lead elsewhere: only a path
 * within the dashboard counts.
 */
export function wayBack(back: unknown): string {
  if (typeof back !== "string" || !/^\/(?![/\\])[\x21-\x7e]*$/.test(back) || back.includes("\\")) return "/";
  return back === "/sign-in" || /^\/sign-in[/?#]/.test(back) ? "/" : back;
}

/** The code in the fragment of a sign-in link, `#code=…`. */
export function codeOf(hash: string): string | undefined {
  return new URLSearchParams(hash.replace(/^#/, "")).get("code") || undefined;
}
