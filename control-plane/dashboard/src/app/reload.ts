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

const reloadedAt = "muster-reloaded-at";
const pauseMs = 10_000;
