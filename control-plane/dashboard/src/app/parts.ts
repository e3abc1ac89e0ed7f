import { lazyRouteComponent } from "@tanstack/react-router";
import { type ComponentType, lazy } from "react";

// Parts of the dashboard are files of their own, which are loaded when they are first shown.

/**
 * Loads the whole page anew when a file of a part of it does not come: the browser ends all that it asks for when its host
 * gets or loses an address, and the files of an older build are gone after an update. What a view shows is in its URL, so
 * it is the same afterwards. Not twice in a while: if files do not come for long, the page says so and has a button.
 */
export function reloadWhenAFileDoesNotCome() {
  window.addEventListener("vite:preloadError", (event) => {
    const now = Date.now();
    const last = Number(sessionStorage.getItem(reloadedAt) ?? 0);
    if (now - last < pauseMs) return;
    sessionStorage.setItem(reloadedAt, String(now));
    event.preventDefault();
    window.location.reload();
  });
}

/**
 * What `load` imports. It never comes while the page is loaded anew: vite answers an import that failed with nothing when
 * somebody has taken care of it, and whoever waits for it must not look into that.
 */
export function held<T>(load: () => Promise<T>): () => Promise<T> {
  return async () => ((await load()) as T | undefined) ?? new Promise<T>(() => {});
}

/** A component in a file of its own, which is loaded when it is first shown. */
export const lazyPart = <Props>(load: () => Promise<{ default: ComponentType<Props> }>) => lazy(held(load));

/** The component of a route, in a file of its own. */
export const lazyPage = (load: Parameters<typeof lazyRouteComponent>[0]) => lazyRouteComponent(held(load));

const reloadedAt = "muster-reloaded-at";
const pauseMs = 10_000;
