/**
 * The way of each member from the request until it is ready, and what is computed over all of them. Times are
 * milliseconds since the member was asked for, so that members of a later scale-up compare with the first ones.
 * Pure; tested in tracks.test.ts.
 */
import type { Instance } from "../../../api/instances.ts";

/** The steps of a start, in order. */
export const steps = ["placed", "disk", "started", "ready"] as const;
export type Step = (typeof steps)[number];

export const stepTitles: Record<Step, string> = {
  placed: "Placed",
  disk: "Disk there",
  started: "Started",
  ready: "Ready",
};

/**
 * What a member is doing: it waits for a node, its disk is made, the hypervisor starts it, its guest boots, it is
 * ready, its guest boots for too long, it failed, or it is out of the way of a start (stopped, paused, unknown …).
 */
export const phases = ["waiting", "disk", "starting", "booting", "ready", "late", "failed", "other"] as const;
export type Phase = (typeof phases)[number];

export const phaseTitles: Record<Phase, string> = {
  waiting: "waiting for a node",
  disk: "getting a disk",
  starting: "starting",
  booting: "running, not ready yet",
  ready: "ready",
  late: "not ready in time",
  failed: "failed",
  other: "stopped or away",
};

export interface Track {
  member: Instance;
  phase: Phase;
  /** When it was asked for, in milliseconds since 1970. */
  asked: number;
  /** When it reached each step; null for steps that it has not. */
  at: Record<Step, number | null>;
  /** When it failed, or the last thing that is known of it; null while it is still on its way. */
  ended: number | null;
}

function phaseOf(member: Instance, at: Track["at"]): Phase {
  switch (member.state) {
    case "failed":
      return "failed";
    case "pending":
    case "starting":
      return at.placed === null ? "waiting" : at.disk === null ? "disk" : "starting";
    case "running":
      return member.ready_at !== null ? "ready" : member.reason === "not_ready" ? "late" : "booting";
    default:
      return "other";
  }
}

// A member is read once: it does not change, it is replaced.
const known = new WeakMap<Instance, Track>();

export function trackOf(member: Instance): Track {
  const track = known.get(member) ?? readTrack(member);
  known.set(member, track);
  return track;
}

function readTrack(member: Instance): Track {
  const asked = Date.parse(member.steps.requested_at ?? member.created_at);
  // A member that is started again keeps its place from before: that took no time in this start.
  const since = (time: string | null) => (time === null ? null : Math.max(0, Date.parse(time) - asked));
  const at = {
    placed: since(member.steps.placed_at),
    disk: since(member.steps.disk_at),
    started: since(member.steps.started_at),
    ready: since(member.ready_at),
  };
  const phase = phaseOf(member, at);
  const last = Math.max(0, ...steps.map((step) => at[step] ?? 0));
  const ended =
    phase === "failed"
      ? Math.max(last, (since(member.last_reason_at ?? member.updated_at) ?? 0) || last)
      : phase === "ready" || phase === "other"
        ? last
        : null;
  return {
    member,
    phase,
    asked,
    at,
    ended,
  };
}

/** All members by number. */
export function tracksOf(members: readonly Instance[]): Track[] {
  return members
    .filter(({ state }) => state !== "deleted")
    .map(trackOf)
    .sort((a, b) => a.member.number - b.member.number);
}

/** How long the line of a member is now. */
export function lengthAt(track: Track, now: number): number {
  return track.ended ?? Math.max(0, now - track.asked, ...steps.map((step) => track.at[step] ?? 0));
}

/** For each step when members reached it, in order of time. */
export type Reached = Record<Step, number[]>;

export function reachedBy(tracks: readonly Track[]): Reached {
  const times = (step: Step) =>
    tracks
      .map((track) => track.at[step])
      .filter((time) => time !== null)
      .sort((a, b) => a - b);
  return { placed: times("placed"), disk: times("disk"), started: times("started"), ready: times("ready") };
}

/** How many of the sorted times are at or before `time`. */
export function countUntil(times: readonly number[], time: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((times[middle] as number) <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The nearest-rank percentile of sorted times, as the API computes it. */
export function percentile(times: readonly number[], percent: number): number | null {
  return times[Math.max(1, Math.ceil((times.length * percent) / 100)) - 1] ?? null;
}

/** How many members reach a step in each of `bins` equal parts of an axis. */
export function density(times: readonly number[], edges: readonly number[]): number[] {
  return edges.slice(1).map((edge, bin) => {
    // What happens exactly at the begin belongs to the first part.
    const before = bin === 0 ? 0 : countUntil(times, edges[bin] as number);
    return countUntil(times, edge) - before;
  });
}

/** The step that took the longest, and how long it took; the last one goes on while the member is on its way. */
export function longestStep(track: Track, now: number): { step: string; ms: number } {
  const names: Record<Step, string> = { placed: "to be placed", disk: "disk", started: "start", ready: "boot" };
  let longest = { step: names.placed, ms: 0 };
  let before = 0;
  for (const step of steps) {
    const until = track.at[step] ?? lengthAt(track, now);
    if (until - before > longest.ms) longest = { step: names[step], ms: until - before };
    if (track.at[step] === null) break;
    before = until;
  }
  return longest;
}

/** The members that took or take the longest, slowest first. Failed ones stand elsewhere. */
export function slowest(tracks: readonly Track[], most: number, now: number): Track[] {
  return tracks
    .filter(({ phase }) => phase !== "failed" && phase !== "other")
    .map((track) => ({ track, ms: track.at.ready ?? lengthAt(track, now) }))
    .sort((a, b) => b.ms - a.ms || a.track.member.number - b.track.member.number)
    .slice(0, most)
    .map(({ track }) => track);
}

/** The members that failed or are not ready in time, grouped by reason: the failed ones first, then the most frequent. */
export function failures(tracks: readonly Track[]): Track[][] {
  const groups = new Map<string, Track[]>();
  for (const track of tracks) {
    if (track.phase !== "failed" && track.phase !== "late") continue;
    const reason = `${track.phase} ${track.member.reason}`;
    const group = groups.get(reason);
    if (group === undefined) groups.set(reason, [track]);
    else group.push(track);
  }
  const late = ([first]: Track[]) => Number(first?.phase === "late");
  return [...groups.values()].sort((a, b) => late(a) - late(b) || b.length - a.length);
}

/** How many members are in each phase, without empty ones. */
export function countPhases(tracks: readonly Track[]): { phase: Phase; members: number }[] {
  const counts = new Map<Phase, number>();
  for (const { phase } of tracks) counts.set(phase, (counts.get(phase) ?? 0) + 1);
  return phases.flatMap((phase) => {
    const members = counts.get(phase);
    return members === undefined ? [] : [{ phase, members }];
  });
}
