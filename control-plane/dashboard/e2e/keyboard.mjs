/** The wizard and the command palette without a mouse. */
import assert from "node:assert/strict";
import { heading, prove } from "./lib/proof.mjs";

await prove("keyboard", async (proof) => {
  await proof.api.image("keys");
  const page = await proof.signedIn();
  const { keyboard } = page;
  // Else the focus fades in.
  await page.addStyleTag({ content: "* { transition: none !important }" });

  /** What has the focus, as one hears it. */
  const focused = () =>
    page.evaluate(() => {
      const element = document.activeElement;
      const group = element?.closest("[role=radiogroup]");
      const of = (id) => (id === null || id === undefined ? "" : (document.getElementById(id)?.textContent ?? ""));
      if (group) return of(group.getAttribute("aria-labelledby"));
      const label = element instanceof HTMLInputElement ? element.labels?.[0]?.textContent : undefined;
      return (label ?? element?.getAttribute("aria-label") ?? element?.textContent ?? "").replace(/\s*\*$/, "").trim();
    });
  /** The focus is seen: something is drawn around it that is not there without it. */
  const marked = () =>
    page.evaluate(() => {
      const drawn = (element) => {
        if (element === null) return "";
        const style = getComputedStyle(element);
        return `${style.outlineStyle} ${style.outlineWidth} ${style.boxShadow} ${style.borderColor}`;
      };
      const element = document.activeElement;
      if (!(element instanceof HTMLElement)) return false;
      // Fields of several parts draw the focus around the whole, and a choice around the label of its input.
      const around = [element, element.nextElementSibling];
      for (let part = element.parentElement; part !== null && around.length < 6; part = part.parentElement)
        around.push(part);
      const before = around.map(drawn);
      element.blur();
      const after = around.map(drawn);
      element.focus();
      return before.some((style, at) => style !== after[at]);
    });
  const tabTo = async (name) => {
    for (let step = 0; step < 60; step += 1) {
      if ((await focused()) === name) return;
      await keyboard.press("Tab");
      assert.ok(await marked(), `the focus cannot be seen at "${await focused()}"`);
    }
    throw new Error(`the tab key does not come to ${name}; it is at "${await focused()}"`);
  };
  const write = async (name, text) => {
    await tabTo(name);
    await keyboard.press("Control+a");
    await keyboard.type(text);
  };

  /** Types into the palette. What is typed before it has the focus goes elsewhere. */
  const find = async (text) => {
    await keyboard.press("Control+k");
    await page.locator('[role=combobox][aria-label^="Find a page"]:focus').waitFor();
    await keyboard.type(text);
  };

  // Two keys lead to the deployments, the tab key to the wizard.
  await keyboard.press("g");
  await keyboard.press("d");
  await heading(page, "Deployments");
  await tabTo("New deployment");
  await keyboard.press("Enter");
  await heading(page, "New deployment");
  await write("Image", "keys");
  await page.getByRole("option", { name: /^keys/ }).waitFor();
  await keyboard.press("Enter");
  await page.waitForURL(/[?&]image=keys/);
  await write("Name", "by-keys");
  await write("Members", "2");
  await tabTo("Runtime");
  await keyboard.press("ArrowRight");
  const places = page.getByRole("region", { name: "Where they would go" });
  await places.getByText("All 2 fit.").waitFor();
  // What nodes can take changes while one looks at the form.
  const nodes = (await proof.api.get("/v1/nodes")).items;
  for (const { id } of nodes) await proof.api.post(`/v1/nodes/${id}/cordon`);
  await places.getByText("None fits.").waitFor();
  for (const { id } of nodes) await proof.api.post(`/v1/nodes/${id}/uncordon`);
  await places.getByText("All 2 fit.").waitFor();
  await tabTo("Deploy 2 members");
  await keyboard.press("Enter");
  await heading(page, "by-keys");
  await page
    .getByRole("listitem")
    .filter({ hasText: /^2 ready$/ })
    .waitFor();

  // The palette opens a deployment by its name, from anywhere.
  await keyboard.press("g");
  await keyboard.press("m");
  await heading(page, "Images");
  // The palette asks for an instance of that name too.
  proof.expect(/status of 404 .*\/v1\/instances\/by-keys/);
  await find("by-keys");
  await page.getByRole("option", { name: /^by-keys.*deployment/, selected: true }).waitFor();
  await keyboard.press("Enter");
  await heading(page, "by-keys");

  // And an action of the page one is at. Escape leaves it.
  await find("scale by-keys");
  await page.getByRole("option", { name: /^Scale by-keys/, selected: true }).waitFor();
  await keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
});
