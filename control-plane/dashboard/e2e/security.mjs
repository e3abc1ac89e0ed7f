/**
 * Stored texts stay texts, wherever they are shown. Pages of other sites can neither read nor change anything with the
 * cookie of one who is signed in. The headers say to browsers what the pages may do.
 */
import assert from "node:assert/strict";
import { prove, settled } from "./lib/proof.mjs";
import { Relay } from "./lib/relay.mjs";

const tricks = [
  "<img src=x onerror=window.injected=1>",
  "<script>window.injected=1</script>",
  '"><svg onload=window.injected=1>',
  "javascript:window.injected=1",
  "{{constructor.constructor('window.injected=1')()}}",
  "\u001b]8;;javascript:window.injected=1\u001b\\click\u001b]8;;\u001b\\",
  "\u202egnp.exe",
];

await prove("security", async (proof) => {
  const labels = Object.fromEntries(tricks.map((text, at) => [`trick-${at}`, text]));
  // Keys are texts of people too, as far as the API takes them.
  await proof.api.image("plain");
  const made = await tried(labels, (some) => proof.api.files("tricky", "plain", 2, { labels: some }));
  assert.ok(Object.keys(made).length >= 4, `the API took only ${JSON.stringify(made)}`);
  await proof.api.done("/v1/snapshots", {
    name: "cut",
    select: { deployment: "tricky" },
    labels: made,
    max_pause_ms: 10_000,
  });
  await proof.api.call("PATCH", "/v1/images/plain", { labels: made });
  const [deployment, snapshot, image] = await Promise.all(
    ["deployments/tricky", "snapshots/cut", "images/plain"].map((path) => proof.api.get(`/v1/${path}`)),
  );
  const instance = (await proof.api.get("/v1/instances?deployment=tricky")).items[0];

  const page = await proof.signedIn({ width: 2560, height: 1300 });
  const check = async (path, shows) => {
    await page.goto(`${proof.url}/ui/${path}`);
    await settled(page);
    if (shows) await page.getByText(tricks[0]).first().waitFor();
    await nothingInjected(path);
  };
  const nothingInjected = async (path) => {
    const found = await page.evaluate(() => ({
      injected: window.injected,
      elements: document.querySelectorAll("img[src=x], svg[onload], [onerror], [onload]").length,
      // The page has its own scripts in its head, as files.
      scripts: [...document.scripts].filter(({ src }) => !src.startsWith(`${location.origin}/ui/`)).length,
      links: [...document.links].filter(({ protocol }) => !["http:", "https:"].includes(protocol)).length,
    }));
    assert.deepEqual(found, { injected: undefined, elements: 0, scripts: 0, links: 0 }, path);
  };
  for (const [path, shows] of [
    ["deployments", false],
    [`deployments/${deployment.id}?tab=settings`, true],
    [`deployments/${deployment.id}?tab=members`, false],
    [`deployments/${deployment.id}?tab=events`, false],
    ["instances", true],
    [`instances/${instance.id}`, true],
    [`images/${image.id}`, true],
    [`snapshots/${snapshot.id}`, true],
    ["events", false],
    ["operations", false],
    // Texts from the address.
    [`instances?q=${encodeURIComponent(tricks[0])}`, false],
    [`deployments/new?image=${encodeURIComponent(tricks[0])}&name=${encodeURIComponent(tricks[2])}`, false],
    [`deployments/${encodeURIComponent(tricks[0])}`, false],
  ]) {
    proof.expect(/status of (400|404|422) .*\/v1\//);
    await check(path, shows);
  }

  // Whoever sends a link cannot choose where it leads after signing in.
  const guest = await proof.page();
  const link = new URL(await proof.api.signInLink());
  link.search = `?back=${encodeURIComponent("//elsewhere.example/")}`;
  await guest.goto(link.href);
  await guest.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  assert.equal(new URL(guest.url()).origin, proof.url);

  // What a guest prints and tells of itself: it comes from here, and is drawn as text.
  await page.route(/\/v1\/instances\/[^/]+\/log/, (route) =>
    route.fulfill({
      contentType: "text/plain",
      body: `${tricks.join("\r\n")}\r\n\u001b[31mred\u001b[0m end-of-tricks\r\n`,
    }),
  );
  await page.route(new RegExp(`/v1/instances/${instance.id}(\\?|$)`), async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...(await answer.json()), ...talkative() } });
  });
  await page.goto(`${proof.url}/ui/instances/${instance.id}`);
  // It is drawn only where it is in sight.
  await page.locator(".xterm").scrollIntoViewIfNeeded();
  await page.locator(".xterm-rows").filter({ hasText: "end-of-tricks" }).waitFor();
  assert.equal(await page.evaluate(() => window.injected), undefined);
  assert.equal(await page.locator(".xterm a, .xterm img, .xterm svg").count(), 0);
  await page.getByRole("region", { name: "What its guest tells" }).getByText(tricks[0]).first().waitFor();
  await nothingInjected("an instance whose guest tells");
  await page.unrouteAll();

  await headers(proof);
  await otherSites(proof, page);
});

/** A machine whose guest tells tricks wherever it can tell texts. */
function talkative() {
  const [text] = tricks;
  const guest = {
    answers: true,
    agent_version: tricks[1],
    os: { name: text, id: tricks[1], version: tricks[2], kernel: tricks[3] },
    host_name: tricks[4],
    interfaces: tricks.map((name) => ({ name, mac: null, addresses: [tricks[3]] })),
    file_systems: tricks.map((mount) => ({ mount, kind: text, size_bytes: 1, used_bytes: 1 })),
  };
  return { runtime: "libvirt", guest };
}

/** Leaves out the labels that the API refuses, one by one. */
async function tried(labels, make) {
  try {
    await make(labels);
    return labels;
  } catch (error) {
    const refused = Object.keys(labels).find((key) => String(error).includes(key)) ?? Object.keys(labels).at(-1);
    assert.ok(refused !== undefined, error);
    const { [refused]: _, ...rest } = labels;
    return tried(rest, make);
  }
}

/** What the controller says about its pages, and about the cookie. */
async function headers(proof) {
  const tls = proof.url.startsWith("https:");
  const profile = await proof.profile();
  const index = await profile.request.get(`${proof.url}/ui/`);
  const policy = index.headers()["content-security-policy"];
  assert.match(policy, /(^|; )default-src 'none'/);
  assert.match(policy, /(^|; )script-src 'self'(;|$)/, "scripts come from files of the dashboard only");
  assert.match(policy, /(^|; )connect-src 'self'(;|$)/);
  assert.match(policy, /(^|; )frame-ancestors 'none'/);
  assert.match(policy, /(^|; )base-uri 'none'/);
  assert.equal(index.headers()["x-content-type-options"], "nosniff");
  assert.equal(index.headers()["referrer-policy"], "no-referrer");
  assert.equal(index.headers()["cache-control"], "no-cache");
  const script = (await index.text()).match(/src="(\/ui\/assets\/[^"]+\.js)"/)[1];
  const asset = await profile.request.get(proof.url + script);
  assert.match(asset.headers()["cache-control"], /immutable/);

  const code = new URL(await proof.api.signInLink()).hash.slice("#code=".length);
  const answer = await profile.request.post(`${proof.url}/v1/session`, { data: { code } });
  const cookie = answer.headers()["set-cookie"];
  assert.match(cookie, /; HttpOnly(;|$)/);
  assert.match(cookie, /; SameSite=Strict(;|$)/);
  assert.equal(/; Secure(;|$)/.test(cookie), tls, cookie);
  assert.ok(!(await answer.text()).includes(cookie.match(/=([^;]+)/)[1]), "the key of a session is only in its cookie");
  await profile.close();
}

/**
 * A page of another port of this host tries to read and to change with the cookie, which the browser sends along: for
 * cookies, ports of one host are the same site. A relay makes such a port with the same kind of TLS.
 */
async function otherSites(proof, page) {
  const target = `${proof.url}/v1/deployments`;
  const relay = await Relay.to(proof.url);
  proof.origins.add(relay.origin);
  proof.expect(
    /CORS policy|net::ERR_FAILED|net::ERR_BLOCKED_BY_RESPONSE|status of 40[0-9]|frame-ancestors|X-Frame-Options/,
  );
  try {
    const before = await proof.api.get("/v1/deployments");
    const other = await page.context().newPage();
    // Its document has no policy that would keep it from trying.
    await other.goto(`${relay.origin}/healthz`);
    const answers = [];
    other.on("response", (response) => {
      if (response.url() === target) answers.push(`${response.request().method()} ${response.status()}`);
    });
    const tries = await other.evaluate(async (url) => {
      const attempt = async (options) => {
        try {
          const answer = await fetch(url, { credentials: "include", ...options });
          return answer.type === "opaque" ? "opaque" : await answer.text();
        } catch (error) {
          return `refused: ${error}`;
        }
      };
      const body = JSON.stringify({ name: "forged", source: { image: "plain" }, count: 1, runtime: "none" });
      return [
        await attempt({}),
        await attempt({ method: "POST", headers: { "Content-Type": "application/json" }, body }),
        await attempt({ method: "POST", headers: { "Content-Type": "text/plain" }, body }),
        await attempt({ method: "POST", mode: "no-cors", body }),
        await attempt({ method: "DELETE" }),
      ];
    }, target);
    for (const text of tries) assert.match(text, /^(refused:|opaque$)/, "another site can read an answer");
    const [answer] = await Promise.all([
      other.waitForResponse((response) => response.url() === target && response.request().isNavigationRequest()),
      other.evaluate((url) => {
        const form = document.createElement("form");
        Object.assign(form, { method: "post", enctype: "text/plain", action: url });
        const input = document.createElement("input");
        Object.assign(input, { name: '{"name":"forged","x":"', value: '"}' });
        form.append(input);
        document.body.append(form);
        form.submit();
      }, target),
    ]);
    assert.equal(answer.status(), 403, await answer.text());
    assert.match(await answer.text(), /cross_site/, "the cookie came along, and the call was refused all the same");
    assert.deepEqual(
      answers.filter((each) => !/ 403$/.test(each) && !each.startsWith("OPTIONS")),
      [],
      "something was answered",
    );
    const after = await proof.api.get("/v1/deployments");
    assert.deepEqual(
      after.items.map(({ name }) => name),
      before.items.map(({ name }) => name),
      "another site changed something",
    );
    // Nor can it show the dashboard in a frame.
    await other.goto(`${relay.origin}/healthz`);
    await other.evaluate((url) => {
      const frame = document.createElement("iframe");
      frame.src = url;
      document.body.append(frame);
      return new Promise((resolve) => frame.addEventListener("load", resolve));
    }, `${proof.url}/ui/`);
    for (const frame of other.frames().slice(1)) {
      assert.ok(!frame.url().startsWith(proof.url), "the dashboard is shown in a frame of another site");
    }
    await other.close();
  } finally {
    relay.close();
  }
}
