import type { Schemas } from "../../api/client.ts";

/** What can boot a disk, as far as its first sectors tell. */
export function bootWords(boot: Schemas["BootKind"]): string {
  if (boot === "bios") return "BIOS";
  if (boot === "uefi_only") return "UEFI only";
  return "not known";
}

/** Labels in one line: `env=test, team=web`. */
export function labelWords(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}
