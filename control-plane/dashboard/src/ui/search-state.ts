/**
 * State that lives in the URL's search part, so that a view can be shared, reloaded and gone back to. Values are texts
 * and lists of texts; `?state=failed&state=running` is a list of two.
 */
import { useLocation, useNavigate } from "@tanstack/react-router";
import { useCallback, useMemo, useRef } from "react";

export type Search = Record<string, string | string[] | undefined>;

/** Reads a search part. The router uses it for every page. */
export function parseSearch(text: string): Search {
  const found: Search = {};
  for (const [name, value] of new URLSearchParams(text)) {
    const before = found[name];
    found[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  return found;
}

/** Writes a search part; empty values are left out. */
export function stringifySearch(search: Record<string, unknown>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") params.append(name, String(each));
    }
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

type Widen<T> = { [K in keyof T]: T[K] extends readonly string[] ? string[] : string };

/** The part of a search that a view has defaults for, in the form of the defaults. */
export function pickSearch<T extends Record<string, string | readonly string[]>>(
  search: Search,
  defaults: T,
): Widen<T> {
  const picked: Search = {};
  for (const [name, fallback] of Object.entries(defaults)) {
    const value = search[name];
    if (Array.isArray(fallback)) picked[name] = value === undefined ? [...fallback] : [value].flat();
    else picked[name] = (Array.isArray(value) ? value[0] : value) ?? (fallback as string);
  }
  return picked as Widen<T>;
}

/**
 * Reads and writes a part of the URL's search. `defaults` names the keys and their values while the URL is silent; what
 * equals its default is left out of the URL. Changes replace the entry of the history unless `push` is given.
 */
export function useSearchState<T extends Record<string, string | readonly string[]>>(
  defaults: T,
): [Widen<T>, (changes: Partial<Widen<T>>, how?: "replace" | "push") => void] {
  const fixed = useRef(defaults).current;
  const search = useLocation({ select: (location) => location.search as Search });
  const navigate = useNavigate();
  const value = useMemo(() => pickSearch(search, fixed), [search, fixed]);
  const change = useCallback(
    (changes: Partial<Widen<T>>, how: "replace" | "push" = "replace") => {
      void navigate({
        to: ".",
        replace: how === "replace",
        resetScroll: false,
        search: ((before: Search) => {
          const after: Search = { ...before, ...changes };
          for (const name of Object.keys(changes)) {
            const same = String(after[name]) === String(fixed[name]);
            if (same) delete after[name];
          }
          return after;
        }) as never,
      });
    },
    [navigate, fixed],
  );
  return [value, change];
}
