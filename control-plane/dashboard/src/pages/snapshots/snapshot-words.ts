/** What is said about snapshots. Pure; tested in snapshot-words.test.ts. */
import type { Schemas } from "../../api/client.ts";
import type { Snapshot } from "../../api/snapshots.ts";

interface Said {
  says: string;
  next: string;
}

const reasons: Record<string, Said> = {
  unreachable: {
    says: "A node or the pool did not answer in time.",
    next: "Look at the nodes of the members, then take it again.",
  },
  hold_expired: {
    says: "The disks could not all be cut within the longest pause that was allowed.",
    next: "Take it again with a longer pause, or when the nodes are less busy.",
  },
  freeze_failed: {
    says: "The file systems of the guests could not all be frozen for the cut.",
    next: "The operation says of which guest and why. Take it again, or as after a power cut.",
  },
  busy: { says: "Something else was being done with a disk.", next: "Wait until that is done, then take it again." },
  disk_full: { says: "A node had no space left for the cut.", next: "Free space there, then take it again." },
  disk_failed: { says: "A disk of a member failed for good.", next: "Take it again without that member." },
  not_assigned: { says: "A node does not have a disk that should be there.", next: "Take it again." },
  io: {
    says: "A file of a node could not be read or written.",
    next: "Look at the nodes of the members, then take it again.",
  },
  invalid: {
    says: "The cut cannot be carried out.",
    next: "This is a fault of Muster. The controller's log has more.",
  },
  member_lost: { says: "A member was lost or deleted meanwhile.", next: "Take it again of those that are left." },
  deadline: {
    says: "It was not saved before its deadline.",
    next: "Take it again when the pool and the nodes are less busy.",
  },
  upload_ended: { says: "Saving it was ended before it was complete.", next: "Take it again." },
  deleted: { says: "It was deleted while it was under way.", next: "Take another one if you need it." },
  cancelled: { says: "Somebody cancelled it.", next: "Take another one if you need it." },
};

/** Why a snapshot failed, and what to do. Nothing of a failed one was published. */
export function whyFailed(reason: string | null): Said {
  return (reason === null ? undefined : reasons[reason]) ?? { says: "It failed.", next: "Take it again." };
}

/** How long it took from the request to the cut, and from the cut until it was durable. */
export function timesOf(snapshot: Pick<Snapshot, "created_at" | "cut_at" | "durable_at">) {
  const asked = Date.parse(snapshot.created_at);
  const cut = snapshot.cut_at === null ? null : Date.parse(snapshot.cut_at);
  const durable = snapshot.durable_at === null ? null : Date.parse(snapshot.durable_at);
  return {
    cutMs: cut === null ? null : Math.max(0, cut - asked),
    saveMs: cut === null || durable === null ? null : Math.max(0, durable - cut),
  };
}

/** A pause with enough digits to tell small ones apart: `23 µs`, `1.2 ms`, `480 ms`. */
export function pauseText(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

/** What a snapshot promises about the file systems of guests: as a choice, and as a fact about one. */
export const consistencies = {
  crash: {
    label: "As after a power cut",
    means:
      "All disks are cut at one instant. Journalling file systems and databases come up from it as after a power cut.",
    was: "crash: as after a power cut",
  },
  filesystem: {
    label: "File systems at rest",
    means:
      "The guests' agents write everything back and freeze their file systems for an instant, so that they mount clean. " +
      "It needs qemu-guest-agent in each guest that runs; one that does not answer fails the snapshot.",
    was: "filesystem: guests wrote everything back first, and mount clean",
  },
} satisfies Record<Schemas["Consistency"], unknown>;

/** The command line that takes the same snapshot of a deployment or an instance; null for what it has no words for. */
export function commandFor(
  of: string | undefined,
  name: string,
  maxPauseMs: number | undefined,
  consistency: Schemas["Consistency"] = "crash",
): string | null {
  if (of === undefined || of === "") return null;
  const rest = consistency === "crash" ? [] : [`--consistency ${consistency}`];
  if (maxPauseMs !== undefined) rest.push(`--max-pause ${maxPauseMs}ms`);
  return ["muster snapshot create", of, ...(name === "" ? [] : [name]), ...rest].join(" ");
}

/** Whether a text can be a name: 1 to 55 of a-z, 0-9 and -, beginning with a letter. */
export function nameProblem(name: string): string | null {
  if (name === "") return null;
  if (!/^[a-z]/.test(name)) return "A name begins with a small letter.";
  if (!/^[a-z0-9-]+$/.test(name)) return "A name has small letters, digits and - only.";
  return name.length > 55 ? "A name has 55 characters at most." : null;
}
