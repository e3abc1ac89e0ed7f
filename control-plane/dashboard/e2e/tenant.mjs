/** A tenant sees its own project and nothing of another: in no list, in no search, at no address. */
import assert from "node:assert/strict";
import { heading, prove, settled } from "./lib/proof.mjs";

await prove("tenant", async (proof) => {
  const [ours, theirs] = await Promise.all([proof.api.tenantOf("tenant-ours"), proof.api.tenantOf("tenant-theirs")]);
  for (const [api, word] of [
    [ours, "ours"],
    [theirs, "theirs"],
  ]) {
    await api.image(`image-${word}`);
    await api.files(`web-${word}`, `image-${word}`, 2);
    await api.done("/v1/snapshots", {
      name: `cut-${word}`,
      select: { deployment: `web-${word}` },
      max_pause_ms: 10_000,
    });
    await api.post("/v1/networks", { name: `net-${word}` });
    await api.post("/v1/security-groups", { name: `group-${word}` });
  }
  const hidden = {
    deployments: await theirs.get("/v1/deployments/web-theirs"),
    images: await theirs.get("/v1/images/image-theirs"),
    snapshots: await theirs.get("/v1/snapshots/cut-theirs"),
    networks: await theirs.get("/v1/networks/net-theirs"),
    "security-groups": await theirs.get("/v1/security-groups/group-theirs"),
    instances: (await theirs.get("/v1/instances")).items[0],
    disks: (await theirs.get("/v1/disks")).items[0],
  };

  const page = await proof.signedIn({ as: ours });
  const navigation = page.getByRole("navigation", { name: "Pages" });
  const offered = await navigation.getByRole("link").allTextContents();
  assert.deepEqual(
    offered.filter((name) => /nodes|pool|projects/i.test(name)),
    [],
    "pages of operators are offered",
  );
  assert.equal(await page.getByRole("button", { name: /^Project:/ }).count(), 0, "a choice of projects is offered");

  // Lists.
  for (const [path, own] of [
    ["deployments", "web-ours"],
    ["instances", "web-ours.0"],
    ["images", "image-ours"],
    ["snapshots", "cut-ours"],
    ["networks", "net-ours"],
    ["security-groups", "group-ours"],
  ]) {
    await page.goto(`${proof.url}/ui/${path}`);
    await page.getByRole("link", { name: own, exact: true }).waitFor();
    assert.doesNotMatch(await page.locator("body").textContent(), /theirs/, path);
  }
  for (const path of ["", "disks", "operations", "events", "tokens"]) {
    await page.goto(`${proof.url}/ui/${path}`);
    await settled(page);
    assert.doesNotMatch(await page.locator("body").textContent(), /theirs/, path);
  }

  // The palette finds the own thing by its name, and the other by neither name nor id.
  proof.expect(/status of 40[34] .*\/v1\//);
  const box = page.getByRole("combobox", { name: /^Find a page/ });
  const find = async (text) => {
    await page.keyboard.press("Control+k");
    await box.fill(text);
  };
  await find("web-ours.1");
  await page.getByRole("option", { name: /web-ours\.1/ }).waitFor();
  await page.keyboard.press("Escape");
  for (const text of ["web-theirs", hidden.deployments.id, "web-theirs.0", hidden.instances.id]) {
    await find(text);
    await page.getByText(/^Nothing here has that name/).waitFor();
    await page.keyboard.press("Escape");
  }

  // Addresses of things of others, and of pages of operators, show nothing of them.
  for (const [kind, thing] of Object.entries(hidden)) {
    await page.goto(`${proof.url}/ui/${kind}/${thing.id}?project=tenant-theirs&in=tenant-theirs`);
    await page.getByText("not_found").first().waitFor();
    assert.doesNotMatch(await page.locator("main").textContent(), /theirs/, kind);
  }
  const { items: nodes } = await proof.api.get("/v1/nodes");
  for (const [path, title] of [
    ["nodes", "Nodes"],
    ["pools/default", "Pool"],
  ]) {
    await page.goto(`${proof.url}/ui/${path}`);
    await heading(page, title);
    await settled(page);
    const text = await page.locator("body").textContent();
    for (const { name, address } of nodes) assert.ok(!text.includes(name) && !text.includes(address), text);
  }
});
