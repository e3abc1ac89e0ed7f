import type { Operation } from "../api/operations.ts";

const verbs: Record<string, string> = {
  create: "Create",
  delete: "Delete",
  drain: "Drain",
  fence: "Fence",
  migrate: "Migrate",
  reboot: "Reboot",
  recover: "Recover",
  restore: "Restore",
  retry: "Retry",
  scale: "Scale",
  start: "Start",
  stop: "Stop",
};

/** What an operation does, as a person says it: `deployment.create` on web reads `Create deployment web`. */
export function titleOf(operation: Pick<Operation, "kind" | "target">): string {
  const [noun = operation.kind, verb = ""] = operation.kind.split(".");
  const said = verbs[verb] ?? verb.replaceAll("_", " ");
  return [said, noun, operation.target.name].filter(Boolean).join(" ");
}
