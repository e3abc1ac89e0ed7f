/** What the state of an instance means, and what one does about it. Pure; tested in state-words.test.ts. */
import type { Instance, Verb } from "../../api/instances.ts";
import { type Tone, toneOf } from "../../ui/states.ts";

export interface Explained {
  tone: Tone;
  /** What is the case, in one sentence. */
  says: string;
  /** What happens next by itself, or what one can do. */
  next?: string;
  /** The action that helps, where there is one. */
  act?: Verb | "node" | "console";
}

type Facts = Pick<Instance, "state" | "reason" | "ready_at" | "runtime" | "steps" | "last_reason">;

/** Reasons for which an instance has failed, or has stopped by itself. */
const ends: Record<string, Omit<Explained, "tone">> = {
  no_capacity: {
    says: "No node had room for it.",
    next: "Free capacity, add a node or ask for less; then start it again.",
    act: "start",
  },
  node_lost: {
    says: "Its node was declared dead.",
    next: "Recover it: it begins anew on another node, from the last saved versions of its disks.",
    act: "recover",
  },
  start_failed: {
    says: "The hypervisor or its disk refused the start.",
    next: "Mend what the sentence below names, then start it again.",
    act: "start",
  },
  not_started_in_time: {
    says: "It did not run before the deadline of its operation.",
    next: "See which step is missing below. Start it again; its operation then gets a new deadline.",
    act: "start",
  },
  not_ready_in_time: {
    says: "It ran, but its probe did not succeed in time, so its power was cut, as its deployment asks for.",
    next: "Read the console to see how far the guest came, then start it again.",
    act: "console",
  },
  guest_ended: {
    says: "The guest turned itself off.",
    next: "Start it again when you need it. Its disks are kept.",
    act: "start",
  },
  host_restarted: {
    says: "Its host was restarted, and its deployment asks that it stays off then.",
    next: "Start it when you need it. Its disks are kept.",
    act: "start",
  },
  power_cut: { says: "Its power was cut.", next: "Start it again when you need it. Its disks are kept.", act: "start" },
  guest_crashed: {
    says: "The guest panicked, or its QEMU process died.",
    next: "Read the end of the console for the cause, then start it again.",
    act: "console",
  },
  agent_stopped: {
    says: "The agent of its node was stopped, and stopped its guests.",
    next: "It starts again together with the agent.",
  },
  disk_lost: {
    says: "Its disk went away while it ran, because the agent of its node was killed; or the node no longer has it.",
    next: "Start it again: what the guest had flushed is still there.",
    act: "start",
  },
  disk_failed: {
    says: "Its disk failed for good: a flush failed, or an object of it is corrupt.",
    next: "Deploy again from its last snapshot or image version; keep this one until you have what you need.",
  },
  disk_full: {
    says: "Its node has no space left for what it writes.",
    next: "Free space on the node or give its pool more; then start it again.",
    act: "start",
  },
};

/** Reasons for which a guest is held. */
const holds: Record<string, Omit<Explained, "tone">> = {
  disk_full: {
    says: "The guest is held: its node has no space left for what it writes.",
    next: "It goes on by itself once there is space. Nothing that it wrote is lost.",
    act: "node",
  },
  disk_error: {
    says: "The guest is held: a call for its disk failed.",
    next: "The call is tried again. Nothing that it wrote is lost. If this lasts, look at its node.",
    act: "node",
  },
  clock_off: {
    says: "The guest is held: parts of its disk are on nodes that cannot be asked, because a clock is wrong.",
    next: "It goes on by itself once the clocks of the nodes agree.",
    act: "node",
  },
  unreachable: {
    says: "The guest is held: parts of its disk are on nodes that do not answer.",
    next: "It goes on by itself once they answer.",
    act: "node",
  },
};

/** Reasons that a running or starting instance may have. */
const troubles: Record<string, Omit<Explained, "tone">> = {
  not_ready: {
    says: "It runs, but its probe has not succeeded within its time.",
    next: "It is asked on and becomes ready by itself. The console shows how far the guest came.",
    act: "console",
  },
  hypervisor_silent: {
    says: "The hypervisor of its node does not answer, so nothing new is known about it.",
    next: "The node is asked again by itself. If this lasts, look at libvirt there.",
    act: "node",
  },
  hypervisor: {
    says: "A call to the hypervisor failed.",
    next: "It is tried again by itself.",
    act: "node",
  },
  unreachable: {
    says: "Parts of its disk are on nodes that do not answer.",
    next: "They are asked again by themselves.",
    act: "node",
  },
  network_failed: {
    says: "A network that it has a card in could not be made on its node.",
    next: "It is tried again by itself. If this lasts, see what its node lacks: muster-agent check.",
    act: "node",
  },
  io: { says: "A file on its node could not be read or written.", next: "It is tried again by itself.", act: "node" },
  disk_error: { says: "A call for its disk failed.", next: "It is tried again by itself.", act: "node" },
  disk_diverged: {
    says: "Its disk holds another state than the database knows, which was restored from a backup.",
    next: "Put it back to a snapshot and give up what it holds: muster snapshot restore --discard-current.",
  },
  clock_off: {
    says: "Parts of its disk are on nodes that cannot be asked, because a clock is wrong.",
    next: "They are asked again once the clocks agree.",
    act: "node",
  },
  disk_full: {
    says: "Its node has no space left.",
    next: "It goes on by itself once there is space.",
    act: "node",
  },
};

export function explain(instance: Facts): Explained {
  const { state, reason } = instance;
  const tone = toneOf(state);
  const known = (words: Record<string, Omit<Explained, "tone">>) => (reason === null ? undefined : words[reason]);
  switch (state) {
    case "pending":
      return {
        tone,
        says: "It waits for a node.",
        next: reason === null ? "The scheduler places it next." : "It is placed as soon as a node can take it.",
      };
    case "starting": {
      const trouble = known(troubles);
      if (trouble !== undefined) return { tone: "warn", ...trouble };
      if (instance.steps.disk_at === null) return { tone, says: "Its node prepares its disk." };
      if (instance.steps.started_at === null)
        return { tone, says: "Its disk is there. The hypervisor starts it next." };
      return { tone, says: "The guest boots." };
    }
    case "running": {
      const trouble = known(troubles);
      if (trouble !== undefined) return { tone: "warn", ...trouble };
      if (instance.ready_at === null)
        return { tone: "busy", says: "The guest boots. It is ready when its probe succeeds." };
      return {
        tone,
        says: instance.runtime === "none" ? "Its disk file is there to be used." : "It runs and is ready.",
      };
    }
    case "paused":
      return {
        tone,
        ...(known(holds) ?? {
          says: "The guest is held on its node.",
          next: "Muster did not do that and will not end it: resume it on the node, or stop and start it.",
          act: "stop",
        }),
      };
    case "stopping":
      return {
        tone,
        says: "It is being turned off.",
        next: "A guest that was asked to turn itself off and takes too long loses power.",
      };
    case "stopped":
      return {
        tone,
        ...(known(ends) ?? {
          says: "It does not run. Its disks are kept.",
          next: "Start it when you need it.",
          act: "start",
        }),
      };
    case "migrating":
      return { tone, says: "It moves to another node." };
    case "unknown":
      return {
        tone,
        says: "Its node is silent, so it is not known whether it runs.",
        next:
          "It may run on unharmed. When the node is heard from again, this is settled by itself. Is the node off for good? " +
          "An operator fences it; then this instance can be recovered on another node.",
        act: "node",
      };
    case "failed":
      return {
        tone,
        ...(known(ends) ??
          known(troubles) ?? { says: "It failed.", next: "Start it again, or delete it.", act: "start" as const }),
      };
    case "deleting":
      return { tone, says: "It is being deleted, with its disks." };
    case "deleted":
      return { tone, says: "It is deleted. Snapshots and versions that were made of it stay." };
    default:
      return { tone, says: `Its state is ${state}, a word that this page does not know.` };
  }
}

/** Whether a verb changes something about an instance. The API decides in the end. */
export function fits(verb: Verb | "snapshot", instance: Pick<Instance, "state" | "reason">): boolean {
  const { state, reason } = instance;
  const ending = state === "deleting" || state === "deleted";
  switch (verb) {
    case "start":
      return state === "stopped" || state === "stopping" || (state === "failed" && reason !== "node_lost");
    case "stop":
      return state === "starting" || state === "running" || state === "paused";
    case "reboot":
      return state === "running" || state === "paused";
    case "recover":
      return state === "failed" && reason === "node_lost";
    case "snapshot":
      return !ending && state !== "failed" && state !== "pending" && state !== "unknown";
    case "delete":
      return !ending;
  }
}

/** How urgently a person should look at an instance: problems first. */
export function urgency(instance: Pick<Instance, "state" | "reason" | "conditions">): number {
  switch (instance.state) {
    case "failed":
      return 0;
    case "unknown":
      return 1;
    case "paused":
      return 2;
    default:
      if (instance.reason !== null && instance.state !== "stopped") return 3;
      return instance.conditions.length > 0 ? 4 : 5;
  }
}

/** Rows with those first that a person should look at. Others keep their order. */
export function problemsFirst<Row extends Pick<Instance, "state" | "reason" | "conditions">>(
  rows: readonly Row[],
): readonly Row[] {
  const byUrgency: Row[][] = [[], [], [], [], [], []];
  for (const row of rows) byUrgency[urgency(row)]?.push(row);
  return byUrgency.flat();
}
