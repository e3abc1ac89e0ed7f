import type { Schemas } from "../../api/client.ts";

/** What can boot a disk, as far as its first sectors tell. */
export function bootWords(boot: Schemas["BootKind"]): string {
  if (boot === "bios") return "BIOS";
  if (boot === "uefi_only") return "UEFI only";
  return "not known";
}

/** What machines run before their boot loader. */
export const firmwareWords = { bios: "BIOS", uefi: "UEFI", uefi_secure: "Secure Boot" } satisfies Record<
  Schemas["Firmware"],
  string
>;

/** The same of what an answer has: words of a newer release stay as they are. */
export const firmwareText = (firmware: string): string =>
  (firmwareWords as Record<string, string>)[firmware] ?? firmware;

/** Labels in one line: `env=test, team=web`. */
export function labelWords(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}
