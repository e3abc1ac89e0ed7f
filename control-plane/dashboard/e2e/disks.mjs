/** A disk is made, grown, detached, given to another instance under another name, detached again and deleted. */
import assert from "node:assert/strict";
import { heading, prove, settled, until } from "./lib/proof.mjs";

const mib = 1024 ** 2;
/** How long nodes may take for one step, on a machine that does much else. */
const stepMs = 90_000;

await prove("disks", async (proof) => {
  const { api } = proof;
  await api.image("base");
  await api.files("web", "base", 2);
  const instance = await api.get("/v1/instances/web.0");
  const page = await proof.signedIn();
  const dialog = page.getByRole("dialog");
  /** Sends the form in the dialog, which closes when it is done. */
  const send = async (verb) => {
    await dialog.getByRole("button", { name: verb, exact: true }).click();
    await dialog.waitFor({ state: "hidden" });
  };

  // A new disk, from the page of an instance.
  await page.goto(`${proof.url}/ui/instances/${instance.id}`);
  await settled(page);
  const panel = page.getByRole("region", { name: /^Disks?$/ });
  await panel.getByRole("button", { name: "Attach a disk" }).click();
  await dialog.getByLabel("Size", { exact: true }).fill("8 MiB");
  await send("Attach");
  await panel.getByRole("button", { name: "Detach: disk data" }).waitFor({ timeout: stepMs });
  const { id } = await api.get(`/v1/disks/${encodeURIComponent("web.0/data")}`);
  const has = (what) =>
    until(`the disk has ${JSON.stringify(what)}`, stepMs, async () => {
      const disk = await api.get(`/v1/disks/${id}`);
      return Object.entries(what).every(([key, value]) => disk[key] === value) || disk;
    });

  // Larger, then on its own. The page follows by itself.
  await panel.getByRole("button", { name: "Grow: disk data" }).click();
  await dialog.getByLabel("New size").fill("16 MiB");
  await send("Grow");
  await has({ state: "attached", size_bytes: 16 * mib });
  await panel.getByText("16 MiB").waitFor();
  await panel.getByRole("button", { name: "Detach: disk data" }).click();
  await send("Detach");
  await has({ state: "detached", instance: null });
  await panel.getByRole("link", { name: "data", exact: true }).waitFor({ state: "detached" });

  // From the list to another instance, under another name.
  await page.goto(`${proof.url}/ui/disks`);
  await page.getByText("was of web.0").waitFor();
  await page.getByRole("link", { name: "data", exact: true }).click();
  await heading(page, "data");
  await page.getByRole("button", { name: "Attach: disk data" }).click();
  await dialog.getByRole("combobox", { name: "Instance" }).click();
  await page.getByRole("option", { name: /^web\.1/ }).click();
  await dialog.getByLabel("Name within the instance").fill("moved");
  await send("Attach");
  await has({ state: "attached", instance_name: "web.1", name: "moved", size_bytes: 16 * mib });
  await heading(page, "moved");

  // Detached again, and deleted.
  await page.getByRole("button", { name: "Detach: disk moved" }).click();
  await send("Detach");
  await page.getByRole("button", { name: "Delete: disk moved" }).click({ timeout: stepMs });
  await dialog.getByRole("button", { name: "Delete", exact: true }).click();
  await heading(page, "Disks");
  const { items } = await api.get("/v1/disks");
  assert.deepEqual(items.map(({ name }) => name).sort(), ["root", "root"]);
});
