/**
 * Runs one proof: a script that drives Chromium against a controller as people would.
 *
 *     await prove("tour", async (proof) => { ... });
 *
 * Each proof has a browser of its own with an empty profile. Whatever the script checks itself, a proof also fails if a
 * page logs an error, asks another origin, or has a secret in an address. A failure prints where each page was, a
 * screenshot of it, and all that the pages logged.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Api } from "./api.mjs";
import { pictures, setting } from "./settings.mjs";

const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long a page may take to show what it should, on a machine that does much else. */
const patienceMs = 60_000;

/** How long guests may take to boot where processors are emulated. */
export const bootMs = 20 * 60_000;

export const say = (text) => process.stdout.write(`${text}\n`);

/** What each page asked and has no answer to yet. */
const waiting = new WeakMap();

/**
 * A browser ends all that it asks for when its host gets or loses an address, and asks again. Agents on this host make
 * uplinks of networks meanwhile.
 */
const ofThisHost = /net::ERR_NETWORK_CHANGED/;

/** Answers that go on for as long as the page is open. */
const isEndless = (request) => /\/v1\/events|[?&]follow=true/.test(request.url()) && request.resourceType() === "fetch";

class Proof {
  constructor(name, browser) {
    this.name = name;
    this.browser = browser;
    this.api = new Api();
    this.url = this.api.url;
    /** What pages logged, and what they did that no page may do. */
    this.logged = [];
    this.faults = [];
    /** Errors in the log that the proof causes on purpose. */
    this.expected = [];
    /** Origins besides the controller's that pages may ask. */
    this.origins = new Set();
    this.pages = [];
  }

  /** Errors that match are no fault, such as a refusal that the proof asks for. */
  expect(pattern) {
    this.expected.push(pattern);
  }

  /** A browser profile of its own: no cookie, no storage. */
  async profile({ theme = "light", width = 1280, height = 800 } = {}) {
    const context = await this.browser.newContext({
      viewport: { width, height },
      colorScheme: theme,
      reducedMotion: "reduce",
      // The certificate is of the cluster's own authority, which Chromium does not know.
      ignoreHTTPSErrors: true,
    });
    context.setDefaultTimeout(patienceMs);
    context.on("page", (page) => this.#watch(page));
    return context;
  }

  /** A page in a profile of its own. */
  async page(options) {
    return (await this.profile(options)).newPage();
  }

  /** A page of one who is signed in: the operator, or whose API is given. `origin` is the controller seen elsewhere. */
  async signedIn({ as = this.api, origin = this.url, profile, ...options } = {}) {
    const page = await (profile ?? (await this.profile(options))).newPage();
    const link = await as.signInLink();
    await page.goto(origin + link.slice(as.url.length));
    await heading(page, "Overview");
    return page;
  }

  #watch(page) {
    this.pages.push(page);
    const asked = new Set();
    waiting.set(page, asked);
    page.on("request", (request) => {
      if (!isEndless(request)) asked.add(request);
    });
    for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => asked.delete(request));
    page.on("console", (message) => {
      const line = `${message.type()}: ${message.text()} (${message.location().url})`;
      this.logged.push(line);
      const isExpected = [ofThisHost, ...this.expected].some((pattern) => pattern.test(line));
      if (message.type() === "error" && !isExpected) this.faults.push(line);
    });
    page.on("pageerror", (error) => this.faults.push(`the page threw ${error.stack ?? error}`));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (!["http:", "https:"].includes(url.protocol)) return;
      if (url.origin !== this.url && !this.origins.has(url.origin)) this.faults.push(`a page asked ${url.origin}`);
      // Fragments stay in the browser.
      if (/ms[a-z]*1_/.test(url.pathname + url.search)) this.faults.push(`a secret was sent in an address: ${url}`);
    });
  }

  /** Fails if any page did what none may do. */
  check() {
    assert.deepEqual(this.faults, [], "pages logged errors, or asked what they may not");
  }

  /** Writes what all pages show, and says where. */
  async explain() {
    for (const [number, page] of this.pages.entries()) {
      if (page.isClosed()) continue;
      const path = join(pictures(), `failed-${this.name}-${number}.png`);
      await page.screenshot({ path, timeout: 10_000 }).catch((error) => say(`no screenshot: ${error.message}`));
      say(`page ${number} was at ${page.url()}, shown in ${path}`);
    }
    say(`the pages logged:\n${this.logged.slice(-60).join("\n")}`);
  }
}

/** Waits until the page has this title. */
export async function heading(page, name) {
  await page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
}

/** Goes to one of the pages that the navigation offers. */
export async function goTo(page, name) {
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name }).click();
  await heading(page, name);
}

/** Waits until a page shows what it has to show: its title is there, and it has asked nothing for a while. */
export async function settled(page) {
  await page.getByRole("heading", { level: 1 }).waitFor();
  let since = Date.now();
  await until("the page is settled", 60_000, async () => {
    const loading = await page.locator("main [aria-busy=true], main [aria-label^=Loading]").count();
    if (waiting.get(page).size > 0 || loading > 0) since = Date.now();
    return Date.now() - since >= 500 || [...waiting.get(page)].map((request) => request.url());
  });
}

/** Waits until a value that is read again and again is as wanted. */
export async function until(what, limitMs, look) {
  const end = Date.now() + limitMs;
  for (;;) {
    const last = await look();
    if (last === true) return;
    if (Date.now() > end) throw new Error(`${what}: not within ${limitMs / 1000} s; last: ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

export async function prove(name, script) {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: flags,
  });
  setting("MUSTER_OUT");
  const proof = new Proof(name, browser);
  const began = Date.now();
  try {
    const index = await (await fetch(`${proof.url}/ui/`)).text();
    assert.match(index, /src="\/ui\/assets\//, "this controller was compiled before the dashboard was built");
    await script(proof);
    proof.check();
    say(`${name}: proved in ${((Date.now() - began) / 1000).toFixed(1)} s`);
  } catch (error) {
    say(`${name}: ${error.stack ?? error}`);
    await proof.explain();
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}
