/** What each kind of problem means for the one who looks, and where the next step is. Pure; tested in problems.test.ts. */
import type { Schemas } from "../../api/client.ts";
import type { Pool } from "../../api/pools.ts";
import type { Summary } from "../../api/summary.ts";
import { count, percent } from "../../ui/format.ts";
import type { Tone } from "../../ui/states.ts";
import { missingWords, poolWarnAt, repairNext } from "../pool/advice.ts";

export interface ShownProblem {
  kind: string;
  tone: Tone;
  /** What is wrong, as a sentence. */
  what: string;
  /** What to do about it. */
  next: string;
  /** Where one does it: the list of what has the problem. */
  to: "/deployments" | "/nodes" | "/instances" | "/snapshots" | "/operations" | "/events" | "/pools/default";
  search: Record<string, string | string[]>;
  /** The words of the link. */
  link: string;
}

interface Known {
  tone: Tone;
  one: string;
  many: string;
  /** The sentence, where a number says nothing. */
  whole?: string;
  next: string;
  /** What a tenant can do, where that differs. */
  tenant?: string;
  to: ShownProblem["to"];
  search: ShownProblem["search"];
  link: string;
}

const onNodes = (condition: string, one: string, many: string, next: string, tone: Tone = "warn"): Known => ({
  tone,
  one: `node ${one}`,
  many: `nodes ${many}`,
  next,
  to: "/nodes",
  search: { q: condition },
  link: "Show them",
});

const known: Record<string, Known> = {
  node_silent: {
    tone: "bad",
    one: "node is silent, so what runs there is unknown",
    many: "nodes are silent, so what runs there is unknown",
    next: "Check host and network. If the host is off for good, declare the node dead.",
    to: "/nodes",
    search: { state: ["silent"] },
    link: "Show silent nodes",
  },
  objects_lost: onNodes(
    "objects_lost",
    "has lost objects of the pool",
    "have lost objects of the pool",
    "Read on the node what is lost, then acknowledge it.",
    "bad",
  ),
  disk_failed: onNodes(
    "disk_failed",
    "has a disk that failed",
    "have disks that failed",
    "Other nodes copy what is there. Replace the disk, or declare the node dead.",
    "bad",
  ),
  node_full: onNodes(
    "node_full",
    "has hardly any room left and takes no new instances",
    "have hardly any room left and take no new instances",
    "Delete what nobody needs and sweep, or make the file system larger.",
    "bad",
  ),
  disk_full: onNodes(
    "disk_full",
    "has a full disk",
    "have full disks",
    "Free space there, or raise the limit of the node's share of the pool.",
    "bad",
  ),
  clock_off: onNodes("clock_off", "has a wrong clock", "have wrong clocks", "Mend time synchronisation on the host."),
  hypervisor_silent: onNodes(
    "hypervisor_silent",
    "gets no answer from libvirt",
    "get no answer from libvirt",
    "Check libvirtd on the host.",
  ),
  identity_copied: onNodes(
    "identity_copied",
    "runs from a copied data folder",
    "run from copied data folders",
    "Stop one of the two agents.",
  ),
  no_kvm: onNodes(
    "no_kvm",
    "emulates its guests, so they are slow",
    "emulate their guests, so they are slow",
    "Turn on virtualisation in the firmware of the host, or use hosts with KVM.",
    "idle",
  ),
  instances_found: {
    tone: "warn",
    one: "instance runs on a node and is not in the database since a restore",
    many: "instances run on nodes and are not in the database since a restore",
    next: "Take them back, or forget them.",
    to: "/nodes",
    search: { found: "1" },
    link: "Decide",
  },
  instance_unknown: {
    tone: "warn",
    one: "instance is on a silent node",
    many: "instances are on silent nodes",
    next: "They come back with their nodes. If a node is dead for good, recover them elsewhere.",
    tenant: "They come back with their hosts. Ask an operator if it takes long.",
    to: "/instances",
    search: { state: ["unknown"] },
    link: "Show them",
  },
  instance_paused: {
    tone: "warn",
    one: "instance is held, because its disk is full or away",
    many: "instances are held, because their disks are full or away",
    next: "They go on by themselves once the disk has room or is back.",
    to: "/instances",
    search: { state: ["paused"] },
    link: "Show them",
  },
  instance_failed: {
    tone: "bad",
    one: "instance failed",
    many: "instances failed",
    next: "Read the reason of each, then retry the deployment, recover them, or delete them.",
    to: "/instances",
    search: { state: ["failed"] },
    link: "Show failed instances",
  },
  not_protected: {
    tone: "warn",
    one: "deployment is not protected as it is to be",
    many: "deployments are not protected as they are to be",
    next: "Its settings say what is not saved and why.",
    to: "/deployments",
    search: { protection: ["not all saved"] },
    link: "Show deployments",
  },
  snapshot_failed: {
    tone: "warn",
    one: "snapshot failed, and nothing of it was published",
    many: "snapshots failed, and nothing of them was published",
    next: "Read why, then take them again or delete them.",
    to: "/snapshots",
    search: { state: ["failed"] },
    link: "Show failed snapshots",
  },
  node_fenced: {
    tone: "idle",
    one: "node was declared dead and still has its name",
    many: "nodes were declared dead and still have their names",
    next: "Recover what was lost with it, then remove it.",
    to: "/nodes",
    search: { state: ["fenced"] },
    link: "Show them",
  },
  operation_overdue: {
    tone: "warn",
    one: "operation is past its deadline",
    many: "operations are past their deadline",
    next: "See what it waits for, and cancel what cannot end.",
    to: "/operations",
    search: { state: ["pending", "running", "cancelling"], sort: "created" },
    link: "Show operations under way",
  },
  database_restored: {
    tone: "warn",
    one: "",
    many: "",
    whole: "The database went back to an older copy within the last week",
    next: "What nodes have beyond it is kept. Compare what runs with what should run.",
    to: "/nodes",
    search: { found: "1" },
    link: "Show what it does not know",
  },
};

/** A sweep that is held for less than its usual period has delayed nothing. */
const heldForMs = 10 * 60_000;

/** The problems of a summary, worst first, each with its next step. Only operators have a pool. */
export function shownProblems(summary: Summary, operator: boolean, shownPool?: Pool, now = 0): ShownProblem[] {
  const lines = summary.problems.map((line) => shown(line, operator));
  if (shownPool !== undefined) lines.push(...problemsOfPool(shownPool, now));
  const pool = summary.pool;
  if (pool && pool.limit_bytes > 0 && pool.used_bytes / pool.limit_bytes >= poolWarnAt) {
    lines.unshift({
      kind: "pool_full",
      tone: pool.used_bytes >= pool.limit_bytes ? "bad" : "warn",
      what: `The pool is ${percent(pool.used_bytes, pool.limit_bytes)} full`,
      next: "Delete versions that nobody needs, or add a node.",
      to: "/nodes",
      search: { sort: "-pool" },
      link: "Show the fullest nodes",
    });
  }
  return lines.sort((a, b) => order[a.tone] - order[b.tone]);
}

/** What the pool's own page tells in full. */
function problemsOfPool(pool: Pool, now: number): ShownProblem[] {
  const { sweep, repair } = pool;
  const lines: ShownProblem[] = [];
  const at = { to: "/pools/default", search: {}, link: "Show the pool" } as const;
  if (repair.missing.objects > 0) {
    const tone = repair.bytes_per_s > 0 ? "busy" : "warn";
    lines.push({ kind: "copies_missing", tone, what: missingWords(pool), next: repairNext(pool), ...at });
  }
  const lost = pool.lost?.length ?? 0;
  if (lost > 0) {
    const what = lost === 1 ? "1 version has lost objects" : `${count(lost)} versions have lost objects`;
    const next = "Import the same content again, or deploy anew from other versions.";
    lines.push({ kind: "versions_lost", tone: "bad", what: `${what} for good`, next, ...at });
  }
  if (pool.repository?.state === "failing") {
    const next = sentence(pool.repository.trouble[0] ?? "its panel tells more");
    lines.push({ kind: "repository_failing", tone: "bad", what: "The repository does not work", next, ...at });
  }
  if (sweep.state === "held" && now - Date.parse(sweep.since) >= heldForMs) {
    const next = sentence(sweep.reason ?? "its page tells more");
    lines.push({ kind: "sweep_held", tone: "warn", what: "The sweep is held: nothing is given back", next, ...at });
  }
  return lines;
}

/** Sorting keeps the order of the API within a tone. */
const order: Record<Tone, number> = { bad: 0, warn: 1, busy: 2, idle: 3, good: 4 };

function shown(line: Schemas["ProblemLine"], operator: boolean): ShownProblem {
  const found = known[line.kind];
  if (found === undefined) {
    return {
      kind: line.kind,
      tone: "warn",
      what: sentence(line.detail),
      next: "Look at the latest events.",
      to: "/events",
      search: {},
      link: "Show events",
    };
  }
  const words = line.count === 1 ? found.one : found.many;
  return {
    kind: line.kind,
    tone: found.tone,
    what: found.whole ?? `${count(line.count)} ${words}`,
    next: operator ? found.next : (found.tenant ?? found.next),
    to: found.to,
    search: found.search,
    link: found.link,
  };
}

const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
