import { expect, test } from "vitest";
import { after, member } from "./fixtures.ts";
import {
  countPhases,
  countUntil,
  density,
  failures,
  lengthAt,
  longestStep,
  percentile,
  reachedBy,
  slowest,
  trackOf,
  tracksOf,
} from "./tracks.ts";

test("a member is in the phase after the last step that it reached", () => {
  const phase = (way: Parameters<typeof member>[1]) => trackOf(member(0, way)).phase;
  expect(phase({ placed: null, changes: { state: "pending" } })).toBe("waiting");
  expect(phase({ placed: 1 })).toBe("disk");
  expect(phase({ placed: 1, disk: 20 })).toBe("starting");
  expect(phase({ placed: 1, disk: 20, started: 30 })).toBe("booting");
  expect(phase({ placed: 1, disk: 20, started: 30, ready: 90 })).toBe("ready");
  expect(phase({ changes: { state: "stopped" } })).toBe("other");
});

test("a member that runs and was not ready in time is late, and one that its hypervisor is silent about is not", () => {
  expect(trackOf(member(0, { started: 30, changes: { reason: "not_ready" } })).phase).toBe("late");
  expect(trackOf(member(0, { started: 30, changes: { reason: "hypervisor_silent" } })).phase).toBe("booting");
});

test("times count from the request of this start, and a place kept from before took no time", () => {
  const restarted = member(0, { placed: 0, disk: 5_010, started: 5_050, ready: 5_100, requested: 5_000 });
  expect(trackOf(restarted).at).toEqual({ placed: 0, disk: 10, started: 50, ready: 100 });
});

test("the line of a member grows while it is on its way and ends when it is ready or failed", () => {
  expect(lengthAt(trackOf(member(0, { placed: 5 })), after(700))).toBe(700);
  expect(lengthAt(trackOf(member(0, { disk: 5, started: 8, ready: 20 })), after(700))).toBe(20);
  const failed = member(0, {
    placed: 5,
    changes: { state: "failed", last_reason_at: new Date(after(300)).toISOString() },
  });
  expect(lengthAt(trackOf(failed), after(700))).toBe(300);
  // A browser whose clock is behind shows no negative time.
  expect(lengthAt(trackOf(member(0, { placed: 5 })), after(-900))).toBe(5);
});

test("percentiles are of the nearest rank, as the API computes them", () => {
  const times = Array.from({ length: 100 }, (_, n) => n + 1);
  expect([50, 90, 99].map((percent) => percentile(times, percent))).toEqual([50, 90, 99]);
  expect(percentile([7], 50)).toBe(7);
  expect(percentile([], 50)).toBeNull();
});

test("counting until a time includes the members of that very time", () => {
  expect([-1, 0, 3, 4, 9].map((time) => countUntil([0, 3, 3, 5], time))).toEqual([0, 1, 3, 3, 4]);
});

test("every member that reached a step is in exactly one part of the density", () => {
  const { ready } = reachedBy([0, 10, 10, 25, 100].map((ready, n) => trackOf(member(n, { started: 0, ready }))));
  expect(density(ready, [0, 10, 50, 100])).toEqual([3, 1, 1]);
});

test("members that are not ready yet count among the slowest with the time they have waited", () => {
  const tracks = tracksOf([
    member(0, { disk: 10, started: 20, ready: 30 }),
    member(1, { disk: 10, started: 20, ready: 90 }),
    member(2, { disk: 10 }),
    member(3, { changes: { state: "failed" } }),
  ]);
  expect(slowest(tracks, 2, after(60)).map((track) => track.member.name)).toEqual(["web.1", "web.2"]);
  expect(slowest(tracks, 2, after(500)).map((track) => track.member.name)).toEqual(["web.2", "web.1"]);
});

test("the longest step is named, also while it goes on", () => {
  expect(longestStep(trackOf(member(0, { placed: 1, disk: 80, started: 90, ready: 100 })), 0)).toEqual({
    step: "disk",
    ms: 79,
  });
  expect(longestStep(trackOf(member(0, { placed: 1, disk: 80, started: 90 })), after(900))).toEqual({
    step: "boot",
    ms: 810,
  });
});

test("failed members come before late ones and are gathered by reason, the most frequent first", () => {
  const failed = (n: number, reason: string) => member(n, { changes: { state: "failed", reason } });
  const late = [3, 4, 5].map((n) => member(n, { started: 9, changes: { reason: "not_ready" } }));
  const found = failures(
    tracksOf([failed(0, "node_lost"), failed(1, "no_capacity"), failed(2, "no_capacity"), ...late]),
  );
  expect(found.map((group) => group.map((track) => track.member.name))).toEqual([
    ["web.1", "web.2"],
    ["web.0"],
    ["web.3", "web.4", "web.5"],
  ]);
});

test("10,000 members are computed in far less than a second", () => {
  const members = Array.from({ length: 10_000 }, (_, n) =>
    member(n, {
      placed: n % 50,
      disk: 200 + (n % 700),
      started: 1000 + (n % 900),
      ready: n % 3 ? 2000 + (n % 5000) : null,
    }),
  );
  tracksOf(members.slice(0, 100));
  const begun = performance.now();
  const tracks = tracksOf(members);
  reachedBy(tracks);
  slowest(tracks, 10, after(9000));
  expect(
    countPhases(tracks)
      .map(({ members: some }) => some)
      .reduce((a, b) => a + b),
  ).toBe(10_000);
  expect(performance.now() - begun).toBeLessThan(1500);
});
