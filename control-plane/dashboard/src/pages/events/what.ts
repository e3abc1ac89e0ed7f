import { bytes } from "../../ui/format.ts";
import { kindInWords } from "../../ui/operation-title.ts";

/** What an event says beside its kind, in one line: `running`, `failed (no_capacity)`, `count 12`. */
export function whatOf(event: { data: object }): string {
  const data = (event.data ?? {}) as Record<string, unknown>;
  const parts: string[] = [];
  const { state, reason, ...rest } = data;
  if (typeof state === "string") parts.push(typeof reason === "string" ? `${state} (${reason})` : state);
  else if (typeof reason === "string") parts.push(reason);
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || typeof value === "object" || isId(value)) continue;
    if (name === "ready" && value === false) continue;
    if (value === true) parts.push(name.replaceAll("_", " "));
    else if (name.endsWith("_bytes") && typeof value === "number")
      parts.push(`${words(name.slice(0, -6))} ${bytes(value)}`);
    else if (name === "kind") parts.unshift(kindInWords(String(value)));
    else parts.push(`${words(name)} ${String(value)}`);
  }
  return parts.join(", ");
}

const words = (name: string) => name.replaceAll("_", " ");
const isId = (value: unknown) => typeof value === "string" && /^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(value);
