/** What states and conditions of nodes mean, and what to do about them. Pure; tested in advice.test.ts. */
import type { Node } from "../../api/nodes.ts";
import { type Advice, worstFirst } from "../../ui/AdviceList.tsx";

interface Meaning extends Omit<Advice, "key" | "detail"> {
  /** For a list. */
  word: string;
}

const conditions: Record<string, Meaning> = {
  disk_full: {
    word: "full disk",
    tone: "bad",
    title: "Its disk is nearly full: it takes no new objects",
    next: "Free space on the file system of its data folder, or raise the limit of its share of the pool. Objects go to other nodes meanwhile, and it takes them again by itself.",
  },
  node_full: {
    word: "no room",
    tone: "bad",
    title: "Its disk has hardly any room left: it takes no new instances",
    next: "Delete instances and images that nobody needs and sweep, or make the file system larger. When it is full, guests that write are held until there is room.",
  },
  disk_failed: {
    word: "failed disk",
    tone: "bad",
    title: "Its disk failed for good",
    next: "It takes neither objects nor instances, and other nodes copy what it has. Snapshot what can still be read, replace the disk and start the agent again; or declare the node dead.",
  },
  clock_off: {
    word: "wrong clock",
    tone: "warn",
    title: "Its clock is wrong",
    next: "Mend time synchronisation on the host, such as chrony or systemd-timesyncd. Certificates and leases depend on it.",
  },
  no_kvm: {
    word: "no KVM",
    tone: "warn",
    title: "Guests are emulated",
    next: "Turn on virtualisation in the firmware of the host, and let the agent use /dev/kvm. Guests run without it, but slowly.",
  },
  hypervisor_silent: {
    word: "libvirt silent",
    tone: "bad",
    title: "libvirt does not answer",
    next: "Check libvirtd and virtlogd on the host. Guests that run go on; starts and stops wait until it answers.",
  },
  no_fuse: {
    word: "no FUSE",
    tone: "bad",
    title: "It cannot serve disks",
    next: "Load the kernel module fuse on the host, and let the agent open /dev/fuse.",
  },
  old_kernel: {
    word: "old kernel",
    tone: "warn",
    title: "Its kernel is old",
    next: "Boot a newer kernel when the node can be stopped. `muster-agent check` on the host tells which.",
  },
  identity_copied: {
    word: "copied identity",
    tone: "bad",
    title: "Two agents run with its identity",
    next: "One of them runs on a copy of the data folder. Stop that one, and start it on a fresh folder with a new token.",
  },
  objects_lost: {
    word: "lost objects",
    tone: "bad",
    title: "It has lost objects of the pool",
    next: "Other nodes send back what they have copies of. Instances that need what nobody has show it as their own condition: import the image again, or restore them. Acknowledge what is left when no node has anything to send any more.",
  },
};

/** Everything about a node that someone should look at, worst first. */
export function adviceFor(node: Node): Advice[] {
  const list: Advice[] = [];
  if (node.state === "silent") {
    list.push({
      key: "silent",
      tone: "bad",
      title: "It is silent, so what runs there is unknown",
      next: "Check the host, its network and its agent. Its instances come back with it. If the host is off for good, declare the node dead; then its instances can be recovered elsewhere.",
    });
  } else if (node.state === "stopped") {
    list.push({
      key: "stopped",
      tone: "warn",
      title: "Its agent was stopped in order",
      next: "Start the agent on the host again. Its instances were shut down with it.",
    });
  } else if (node.state === "fenced") {
    list.push({
      key: "fenced",
      tone: "idle",
      title: "It was declared dead",
      next: "Recover its instances, then remove it to free its name. To use the host again, join it anew with a fresh data folder.",
    });
  } else if (node.state === "joining") {
    list.push({
      key: "joining",
      tone: "busy",
      title: "It is joining",
      next: "Nothing is to be done. If it takes more than a minute, read the log of its agent.",
    });
  }
  const isFailed = node.conditions.some(({ kind }) => kind === "disk_failed");
  if (node.out && !node.drain && !isFailed) {
    list.push({
      key: "out",
      tone: "warn",
      title: "It is out: other nodes make new copies of what it holds",
      next: "Nothing is to be done for the copies: they are made by themselves. It is in again once it is heard, and keeps what is still right.",
    });
  }
  for (const { kind, detail } of node.conditions) {
    const known = conditions[kind];
    list.push({
      key: kind,
      detail,
      tone: known?.tone ?? "warn",
      title: known?.title ?? conditionWord(kind),
      next: known?.next ?? "Run `muster-agent check` on the host.",
    });
  }
  if (node.drain?.state === "drained") {
    list.push({
      key: "drained",
      tone: "idle",
      title: "It is drained: it has no objects any more",
      next: "Remove it, or end the drain to use it again. Instances that are on it go on.",
    });
  } else if (!node.schedulable && !node.drain && node.state === "ready") {
    list.push({
      key: "cordoned",
      tone: "idle",
      title: "It is cordoned",
      next: "No new instances are placed on it. Those that run there go on. Uncordon it to use it again.",
    });
  }
  return worstFirst(list);
}

/** Why a node is as it is, beside its state: its reason, or that it is out, drained or cordoned. */
export function noteOf(node: Node): string | null {
  if (node.reason) return node.reason;
  const notes = [node.out ? "out" : null, node.drain?.state, node.schedulable || node.drain ? null : "cordoned"];
  return notes.filter(Boolean).join(", ") || null;
}

/** The short word of a condition in a list. */
export function conditionWord(kind: string): string {
  return conditions[kind]?.word ?? kind.replaceAll("_", " ");
}

/** The commands that make a host a node. The token is in a file, because arguments can be read by everybody there. */
export function joinCommand(token: string, controller: string, address: string, name: string): string {
  const listen =
    address.trim() === "" ? "ADDRESS:7450" : /:\d+$/.test(address.trim()) ? address.trim() : `${address.trim()}:7450`;
  const named = name.trim() === "" ? "" : ` --name ${name.trim()}`;
  return [
    `(umask 077; echo '${token}' > join.token)`,
    `muster-agent run --data-dir /var/lib/muster/agent --controller ${controller} \\`,
    `    --join-token @join.token --listen ${listen}${named}`,
  ].join("\n");
}
