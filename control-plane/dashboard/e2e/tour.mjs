/**
 * What somebody does on the first day, in the browser alone: sign in by a link, upload an image, deploy four guests,
 * watch them boot, read a console and type into it, take a snapshot, fork it, delete all of it, sign out. Needs agents that run guests.
 */
import assert from "node:assert/strict";
import { found } from "./lib/axe.mjs";
import { bootMs, goTo, heading, prove, say, until } from "./lib/proof.mjs";
import { setting } from "./lib/settings.mjs";

await prove("tour", async (proof) => {
  const link = await proof.api.signInLink();
  const code = new URL(link).hash.slice("#code=".length);
  assert.ok(code.length > 20, link);
  const page = await proof.page();

  // The link leads to the overview, and its code is in no address that the browser keeps.
  const answer = await page.goto(link);
  assert.match(answer.headers()["content-security-policy"], /default-src 'none'; script-src 'self';/);
  await heading(page, "Overview");
  const devtools = await page.context().newCDPSession(page);
  const addresses = async () => {
    const { entries } = await devtools.send("Page.getNavigationHistory");
    return entries.map(({ url }) => url);
  };
  assert.ok(!(await addresses()).some((url) => url.includes(code)), "the code is in the history");

  // An image, from a file.
  await goTo(page, "Images");
  await page.getByRole("link", { name: "New image" }).click();
  await heading(page, "New image");
  await page.locator("input[type=file]").setInputFiles(setting("MUSTER_IMAGE"));
  await page.getByLabel("Name", { exact: true }).fill("demo");
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await page
    .getByRole("status")
    .filter({ hasText: "is ready" })
    .waitFor({ timeout: 5 * 60_000 });

  // The wizard says where the members would go before it starts them.
  await page.getByRole("link", { name: "Deploy instances from it" }).click();
  await heading(page, "New deployment");
  await page.getByLabel("Name", { exact: true }).fill("web");
  await page.getByRole("textbox", { name: "Members", exact: true }).fill("4");
  await page.getByLabel("Memory of each").fill("128 MiB");
  await page.getByText("console says so").click();
  await page.getByLabel("Within seconds").fill("1800");
  await page.getByRole("region", { name: "Where they would go" }).getByText("All 4 fit.").waitFor();
  assert.match(page.url(), /name=web/, "the form is in the address");
  const started = async () => (await proof.api.get("/v1/deployments")).items.map(({ name }) => name);
  assert.ok(!(await started()).includes("web"), "a dry run starts nothing");
  await page.getByRole("button", { name: "Deploy 4 members" }).click();
  await heading(page, "web");

  // The console of a member fills while it boots, without another look at the page.
  const legend = page.getByRole("listitem");
  await page.getByRole("listbox", { name: /^Members by time/ }).waitFor();
  const second = await page.context().newPage();
  await second.goto(`${proof.url}/ui/instances`);
  await second.getByRole("link", { name: "web.0", exact: true }).click();
  await heading(second, "web.0");
  const terminal = second.locator(".xterm-rows");
  const shown = async () =>
    ((await terminal.count()) === 0 ? "" : await terminal.textContent()).replaceAll("\u00a0", " ");
  await until("the console shows something", bootMs, async () => (await shown()).trim() !== "");
  await until("the console shows the end of the boot", bootMs, async () => {
    const text = await shown();
    return text.includes("MUSTER-READY") || text.slice(-300);
  });

  // A command that is typed into its serial console is answered by the guest.
  await second.getByRole("tab", { name: "Serial console" }).click();
  await second.getByText("Connected. You may type.").waitFor();
  await second.keyboard.press("Enter");
  await second.keyboard.type("echo answer-$((6 * 7))\n");
  await until("the guest answers what was typed", bootMs, async () => {
    const text = await shown();
    return text.includes("answer-42") || text.slice(-300);
  });
  assert.deepEqual(await found(second), [], "axe-core finds something serious in the serial console");
  // The keyboard finds its way out.
  await second.keyboard.press("Control+]");
  await second.locator("button:focus").filter({ hasText: "Full screen" }).waitFor();

  // Its screen shows something, and takes keys.
  await second.getByRole("tab", { name: "Screen" }).click();
  await second.getByText("Connected. Keys and mouse go to the guest.").waitFor();
  const picture = second.getByRole("region", { name: "Screen of web.0" }).locator("canvas");
  await until("the screen shows more than black", 60_000, () =>
    picture.evaluate((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, n) => n % 4 < 3 && value > 60);
    }),
  );
  assert.deepEqual(await found(second), [], "axe-core finds something serious in the screen");
  await second.close();

  await legend.filter({ hasText: /^4 ready$/ }).waitFor({ timeout: bootMs });
  const { timing } = await proof.api.get("/v1/deployments/web");
  say(`four guests were ready after ${timing.ready.slowest[0].ms} ms at most`);

  // A snapshot of all of them, and a second deployment from it.
  await page.getByRole("button", { name: "Snapshot", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("monday");
  await dialog.getByLabel("Longest pause").fill("10000");
  await dialog.getByRole("button", { name: "Take the snapshot" }).click();
  await dialog.waitFor({ state: "hidden" });
  await goTo(page, "Snapshots");
  await page.getByRole("link", { name: "monday", exact: true }).click();
  await heading(page, "monday");
  await page.getByRole("link", { name: "Fork" }).click({ timeout: 5 * 60_000 });
  await heading(page, "New deployment");
  await page.getByLabel("Name", { exact: true }).fill("fork");
  await page.getByLabel("Memory of each").fill("128 MiB");
  await page.getByRole("region", { name: "Where they would go" }).getByText("All 4 fit.").waitFor();
  await page.getByRole("button", { name: "Fork 4 members" }).click();
  await heading(page, "fork");
  await legend.filter({ hasText: /^4 ready$/ }).waitFor({ timeout: bootMs });

  // All of it goes again.
  for (const name of ["fork", "web"]) {
    await goTo(page, "Deployments");
    await page.getByRole("link", { name, exact: true }).click();
    await heading(page, name);
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Delete" }).click();
    const ask = page.getByRole("dialog");
    await ask.getByLabel(`Type ${name} to confirm`).fill(name);
    await ask.getByRole("button", { name: "Delete" }).click();
    await ask.waitFor({ state: "hidden" });
  }
  await goTo(page, "Deployments");
  for (const name of ["fork", "web"]) {
    await page.getByRole("link", { name, exact: true }).waitFor({ state: "hidden", timeout: 5 * 60_000 });
  }

  // After signing out, the way back shows nothing, and the link is used up.
  proof.expect(/status of 401 .*\/v1\//);
  await page.getByRole("button", { name: /^Signed in as/ }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  assert.deepEqual(await page.context().cookies(), [], "no cookie is left");
  assert.ok(!(await addresses()).some((url) => url.includes(code)), "the code is in the history");
  await page.goBack();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  assert.equal(await page.getByRole("navigation", { name: "Pages" }).count(), 0, "the way back shows a page");
  await page.goto(link);
  await page.getByRole("alert").filter({ hasText: "This link does not work any more" }).waitFor();
});
