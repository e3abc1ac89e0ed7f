/**
 * Every page in both themes at three widths: a screenshot of each, for people to look at. axe-core finds nothing serious
 * in both themes, and nothing is wider than the window of a phone.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { found } from "./lib/axe.mjs";
import { prove, say, settled } from "./lib/proof.mjs";
import { pictures } from "./lib/settings.mjs";
import { everyPage } from "./lib/things.mjs";

const widths = [
  { width: 375, height: 800 },
  { width: 1280, height: 800 },
  { width: 2560, height: 1300 },
];

await prove("looks", async (proof) => {
  const pages = { ...(await everyPage(proof.api)), "sign-in": "sign-in" };
  proof.expect(/status of 40[14] .*\/v1\//);
  const wrong = [];
  await sees(proof);
  for (const theme of ["light", "dark"]) {
    const page = await proof.signedIn({ theme });
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(`${proof.url}/ui/${path}`);
      await settled(page);
      for (const size of widths) {
        await page.setViewportSize(size);
        // Charts and tables measure their room after the page was laid out.
        await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
        await page.screenshot({ path: join(pictures(), `${name}-${theme}-${size.width}.png`) });
        if (size.width === 375) {
          // What is drawn anew for the narrow window is so a moment later, on a busy machine more than that.
          const fits = () => document.documentElement.scrollWidth <= window.innerWidth;
          await page.waitForFunction(fits, undefined, { timeout: 3000 }).catch(() => {});
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          if (wide > 375) wrong.push(`${name} is ${wide} pixels wide in a window of 375`);
        }
        if (size.width === 1280) {
          for (const { id, help, at } of await found(page)) {
            wrong.push(`${name}, ${theme}: ${id}: ${help}\n    ${at.join("\n    ")}`);
          }
        }
      }
    }
  }
  say(`${Object.keys(pages).length} pages are in ${pictures()}`);
  assert.equal(wrong.length, 0, `${wrong.length} findings:\n${wrong.join("\n")}`);
});

/** axe-core works in these pages: it finds a button that has no name. */
async function sees(proof) {
  const page = await proof.signedIn();
  await page.evaluate(() => document.body.append(document.createElement("button")));
  assert.ok((await found(page)).some(({ id }) => id === "button-name"));
  await page.close();
}
