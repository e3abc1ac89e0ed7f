import type { Schemas } from "../../api/client.ts";
import type { Image } from "../../api/images.ts";
import { sizeOf, sizeText } from "../../ui/size.ts";

/** What is known of the system on an image, as texts of a form. Pure; tested in system.test.ts. */
export interface SystemTexts {
  os: string;
  user: string;
  disk: string;
  memory: string;
  /** Empty: it stays as it is, which may be what somebody said or what was found out. */
  firmware: "" | Schemas["FirmwareChoice"];
}

export function systemTexts(image: Image): SystemTexts {
  const size = (bytes: number | null) => (bytes === null ? "" : sizeText(bytes));
  return {
    os: image.os ?? "",
    user: image.default_user ?? "",
    disk: size(image.min_disk_bytes),
    memory: size(image.min_memory_bytes),
    firmware: "",
  };
}

/** The change that the texts mean, or the field that cannot be read. An empty text says that it is not known; no
 *  choice of firmware leaves that as it is. */
export function systemChange(texts: SystemTexts): { change: Schemas["PatchImage"] } | { unread: "disk" | "memory" } {
  const text = (value: string) => value.trim() || null;
  const sizes: Record<"disk" | "memory", number | null> = { disk: null, memory: null };
  for (const field of ["disk", "memory"] as const) {
    if (texts[field].trim() === "") continue;
    sizes[field] = sizeOf(texts[field]);
    if (sizes[field] === null) return { unread: field };
  }
  return {
    change: {
      os: text(texts.os),
      default_user: text(texts.user),
      min_disk_bytes: sizes.disk,
      min_memory_bytes: sizes.memory,
      ...(texts.firmware === "" ? {} : { firmware: texts.firmware === "auto" ? null : texts.firmware }),
    },
  };
}
