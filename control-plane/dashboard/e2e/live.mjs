/** The stream of events: one for all tabs; when it breaks, the page says so, and shows what was missed once it is back. */
import assert from "node:assert/strict";
import { goTo, prove, until } from "./lib/proof.mjs";
import { Relay } from "./lib/relay.mjs";

await prove("live", async (proof) => {
  await proof.api.image("live");
  await proof.api.files("live-before", "live", 1);
  const relay = await Relay.to(proof.url);
  proof.origins.add(relay.origin);
  try {
    const profile = await proof.profile();
    // The streams that are open, by tab.
    const streams = new Map();
    profile.on("request", (request) => {
      if (new URL(request.url()).pathname === "/v1/events" && request.headers().accept === "text/event-stream")
        streams.set(request, request.frame().page());
    });
    for (const end of ["requestfinished", "requestfailed"]) profile.on(end, (request) => streams.delete(request));
    profile.on("page", (page) => {
      page.on("close", () => {
        for (const [request, of] of streams) if (of === page) streams.delete(request);
      });
    });
    const live = (page) =>
      page
        .getByRole("status")
        .filter({ hasText: /^Live$/ })
        .waitFor();
    const shows = (page, name) => page.getByRole("link", { name, exact: true }).waitFor();
    const deployments = async (page) => {
      await goTo(page, "Deployments");
      await shows(page, "live-before");
    };

    const first = await proof.signedIn({ profile, origin: relay.origin });
    await live(first);
    await deployments(first);
    const second = await profile.newPage();
    await second.goto(`${relay.origin}/ui/deployments`);
    await shows(second, "live-before");
    await live(second);
    assert.equal(streams.size, 1, "two tabs have one stream");

    // A change arrives in both tabs, without a look at the page.
    await proof.api.files("live-meanwhile", "live", 1);
    await Promise.all([shows(first, "live-meanwhile"), shows(second, "live-meanwhile")]);

    // The other tab takes the stream over when the one that reads it closes.
    const reader = [...streams.values()][0];
    const left = reader === first ? second : first;
    await reader.close();
    await until("another tab reads the stream", 30_000, () => streams.size === 1 || streams.size);
    await live(left);
    await proof.api.files("live-later", "live", 1);
    await shows(left, "live-later");

    // A break is said, and what happened meanwhile is there when it is mended.
    proof.expect(/net::ERR_/);
    relay.cut();
    const banner = left.getByText(/^The connection to the controller (is|was) lost/);
    await banner.waitFor();
    await proof.api.files("live-missed", "live", 1);
    assert.equal(
      await left.getByRole("link", { name: "live-missed" }).count(),
      0,
      "nothing can arrive through the cut",
    );
    relay.mend();
    await shows(left, "live-missed");
    await banner.waitFor({ state: "hidden" });
    await live(left);
    assert.equal(streams.size, 1);
  } finally {
    relay.close();
  }
});
