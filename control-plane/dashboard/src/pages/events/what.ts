import { bytes, count } from "../../ui/format.ts";
import { kindInWords } from "../../ui/operation-title.ts";

/** What an event says beside its kind, in one line: `running`, `failed (no_capacity)`, `count 12`. */
export function whatOf(event: { kind?: string; data: object }): string {
  const data = (event.data ?? {}) as Record<string, unknown>;
  const sentence = sentences[event.kind ?? ""]?.(data);
  if (sentence !== undefined) return sentence;
  const parts: string[] = [];
  const { state, reason, ...rest } = data;
  if (typeof state === "string") parts.push(typeof reason === "string" ? `${state} (${reason})` : state);
  else if (typeof reason === "string") parts.push(reason);
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || typeof value === "object" || isId(value)) continue;
    if (name === "ready" && value === false) continue;
    if (value === true) parts.push(name.replaceAll("_", " "));
    else if (name === "bytes" && typeof value === "number") parts.push(bytes(value));
    else if (name.endsWith("_bytes") && typeof value === "number")
      parts.push(`${words(name.slice(0, -6))} ${bytes(value)}`);
    else if (name === "kind") parts.unshift(kindInWords(String(value)));
    else parts.push(`${words(name)} ${String(value)}`);
  }
  return parts.join(", ");
}

const number = (value: unknown) => (typeof value === "number" ? value : undefined);

/** Kinds of events that read best as a sentence; undefined where the data is not as expected. */
const sentences: Record<string, (data: Record<string, unknown>) => string | undefined> = {
  "pool.swept": ({ objects, bytes: dropped, reclaimed_bytes }) =>
    number(objects) === undefined
      ? undefined
      : `${count(number(objects))} copies dropped, ${bytes(number(dropped))}; the disks got ${bytes(number(reclaimed_bytes))} back`,
  "pool.sweep_held": ({ reason }) => (typeof reason === "string" ? `the sweep is held: ${reason}` : undefined),
  "pool.sweep_allowed": () => "the sweep is allowed after the restore",
};

const words = (name: string) => name.replaceAll("_", " ");
const isId = (value: unknown) => typeof value === "string" && /^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(value);
