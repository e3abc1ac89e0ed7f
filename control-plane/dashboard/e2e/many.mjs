/** 10,000 instances: listing, typing into the filter, sorting and scrolling never keep the page busy for 200 ms. */
import assert from "node:assert/strict";
import { slowdown } from "./lib/machine.mjs";
import { prove, say, until } from "./lib/proof.mjs";

const limitMs = 200;

await prove("many", async (proof) => {
  const total = (await proof.api.get("/v1/summary?project=*")).instances;
  const there = Object.values(total).reduce((sum, count) => sum + count, 0);
  assert.ok(there >= 10_000, `this proof needs a controller with 10,000 instances; this one has ${there}`);
  const page = await proof.signedIn();
  // Long tasks, and how long the page took to show what a key or a click did.
  await page.addInitScript(() => {
    window.slow = [];
    new PerformanceObserver((list) => {
      for (const { duration, startTime } of list.getEntries()) window.slow.push({ what: "task", duration, startTime });
    }).observe({ type: "longtask", buffered: true });
    new PerformanceObserver((list) => {
      for (const { name, duration, startTime } of list.getEntries())
        window.slow.push({ what: name, duration, startTime });
    }).observe({ type: "event", durationThreshold: 16 });
  });
  /** Does something, and answers the longest that the page was busy with it. */
  const measured = async (what, act) => {
    await page.evaluate(() => {
      window.slow = [];
    });
    const before = slowdown();
    await act();
    // What is late is told once the page is idle.
    await page.evaluate(() => new Promise((resolve) => requestIdleCallback(resolve)));
    const slow = await page.evaluate(() => window.slow);
    const seen = Math.max(0, ...slow.map(({ duration }) => duration));
    const slower = (before + slowdown()) / 2;
    const longest = Math.round(seen / slower);
    say(`${what}: ${Math.round(seen)} ms at most, on a machine that is ${slower.toFixed(1)} times slower than alone`);
    return { what, longest };
  };
  const count = page.locator("[aria-live=polite]").filter({ hasText: /^[\d,.\s]+( of [\d,.\s]+)?( so far)?$/ });
  const says = (pattern) =>
    until(`the table says ${pattern}`, 120_000, async () => {
      const text = await count.first().textContent();
      return pattern.test(text) || text;
    });
  const results = [];
  const filter = page.getByRole("textbox", { name: "Filter instances" });
  results.push(
    await measured("loading", async () => {
      await page.goto(`${proof.url}/ui/instances`);
      await filter.waitFor();
      await says(/^1\d[,.\s]?\d{3}$/);
    }),
  );
  results.push(
    await measured("filtering", async () => {
      await filter.pressSequentially("99", { delay: 60 });
      await says(/^[\d,.]+ of 1\d[,.\s]?\d{3}$/);
      await filter.press("Escape");
      await says(/^1\d[,.\s]?\d{3}$/);
    }),
  );
  for (const column of ["Name", "Node", "State"]) {
    results.push(
      await measured(`sorting by ${column.toLowerCase()}`, async () => {
        const header = page.getByRole("columnheader", { name: column, exact: true });
        await header.getByRole("button").click();
        await until("it is sorted", 30_000, async () => (await header.getAttribute("aria-sort")) === "ascending");
      }),
    );
  }
  results.push(
    await measured("scrolling", async () => {
      const grid = page.getByRole("grid", { name: "instances" });
      await grid.focus();
      await page.keyboard.press("End");
      for (let step = 0; step < 20; step += 1) await page.keyboard.press("PageUp");
      await page.keyboard.press("Home");
    }),
  );
  const bad = results.filter(({ longest }) => longest > limitMs);
  assert.deepEqual(bad, [], `the page may be busy for ${limitMs} ms`);
});
