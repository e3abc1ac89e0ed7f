// Sets the colour scheme before the first paint, so that a dark page does not flash white. It is a file of its own
// because the Content-Security-Policy allows no script inside the page.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("muster.theme");
  } catch {
    // Without storage the system's scheme counts.
  }
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
