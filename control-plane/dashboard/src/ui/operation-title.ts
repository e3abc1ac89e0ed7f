import type { Operation } from "../api/operations.ts";

const verbs: Record<string, string> = {
  create: "Create",
  delete: "Delete",
  drain: "Drain",
  fence: "Fence",
  migrate: "Migrate",
  reboot: "Reboot",
  recover: "Recover",
  remove: "Remove",
  restore: "Restore",
  retry: "Retry",
  scale: "Scale",
  start: "Start",
  stop: "Stop",
  sweep: "Sweep",
};

/** What operations of a kind do: `deployment.create` reads `Create deployment`. */
export function kindInWords(kind: string): string {
  const [noun = kind, verb = ""] = kind.split(".");
  return [verbs[verb] ?? verb.replaceAll("_", " "), noun].filter(Boolean).join(" ");
}

/** What an operation does, as a person says it: `deployment.create` on web reads `Create deployment web`. */
export function titleOf(operation: Pick<Operation, "kind" | "target">): string {
  return [kindInWords(operation.kind), operation.target.name].filter(Boolean).join(" ");
}
