/**
 * The form of the wizard: what was typed, as texts, and the request that it means. It lives in the URL under the names
 * below. Pure; tested in form.test.ts.
 */
import type { Schemas } from "../../../api/client.ts";
import type { CreateDeployment } from "../../../api/deployments.ts";
import { errorsByField } from "../../../ui/field-errors.ts";
import { sizeHint, sizeOf } from "../../../ui/size.ts";
import { labelsOf } from "../labels.ts";
import { emptyProtect, protectFieldOf, protectMeantBy } from "../protection/protect-form.ts";
import { type CardField, cardFieldOf, cardOf, nicsOf } from "./cards.ts";
import { type DiskField, diskFieldOf, diskOf, disksOf } from "./disks.ts";
import type { SeedField } from "./seed.ts";

/** What is in the URL while it says nothing: also the API's defaults, where it has any. */
export const emptyForm = {
  /** The project of the thing; operators choose it. */
  in: "",
  image: "",
  number: "",
  snapshot: "",
  /** With a snapshot: start without the members whose versions were deleted. */
  missing: "",
  version: "",
  name: "",
  count: "1",
  least: "",
  cpus: "1",
  memory: "512 MiB",
  disk: "",
  /** Disks beside the boot disk. */
  further: [] as string[],
  firmware: "auto",
  /** Whether each has a TPM: `usual` is none, and in a fork as its source has it. */
  tpm: "usual",
  runtime: "libvirt",
  probe: "running",
  marker: "",
  timeout: "",
  late: "keep",
  /** What becomes of members that ran when their host went down. */
  back: "start",
  /** The network cards: `usual` as the API chooses them, `none`, or those in `card`. */
  cards: "usual",
  card: [] as string[],
  policy: "spread",
  most: "",
  deadline: "",
  zone: [] as string[],
  node: [] as string[],
  label: [] as string[],
  ...emptyProtect,
};
export type Form = typeof emptyForm;
/** What an error can be about: also what is not in the URL. */
export type Field = keyof Form | SeedField | CardField | DiskField;

export type SourceKind = "image" | "snapshot" | "version";

/** What the form starts from: what is filled in says it. */
export function sourceKindOf(form: Form): SourceKind {
  return form.snapshot !== "" ? "snapshot" : form.version !== "" ? "version" : "image";
}

export interface Meant {
  request: CreateDeployment;
  /** What cannot be read, by field. The request lacks it. */
  unread: Partial<Record<Field, string>>;
  /** Whether anything is chosen to start from. */
  sourced: boolean;
}

/** The request that a form means. What equals a default of the API is left out, so that the request stays short. */
export function meantBy(form: Form): Meant {
  const unread: Meant["unread"] = {};
  const number = (field: keyof Form): number | undefined => {
    const text = String(form[field]).trim();
    if (text === "") return undefined;
    if (/^\d{1,15}$/.test(text)) return Number(text);
    unread[field] = "Write a whole number.";
    return undefined;
  };
  const size = (field: keyof Form): number | undefined => {
    const text = String(form[field]).trim();
    if (text === "") return undefined;
    const read = sizeOf(text);
    if (read === null) unread[field] = sizeHint;
    return read ?? undefined;
  };
  const kind = sourceKindOf(form);
  const source: CreateDeployment["source"] =
    kind === "snapshot"
      ? { snapshot: form.snapshot.trim(), ...(form.missing === "" ? {} : { allow_missing: true }) }
      : kind === "version"
        ? { version: form.version.trim() }
        : { image: form.image, ...given("version", number("number")) };

  const files = form.runtime === "none";
  const ready = files
    ? {}
    : {
        ...(form.probe === "running" ? {} : { probe: form.probe as "console" | "guest_agent" }),
        ...(form.probe === "console" ? given("marker", text(form.marker)) : {}),
        ...given("timeout_s", number("timeout")),
      };
  const cards = form.cards === "chosen" && !files ? nicsOf(form.card.map(cardOf)) : undefined;
  Object.assign(unread, cards?.unread);
  const further = disksOf(form.further.map(diskOf));
  Object.assign(unread, further.unread);
  const placement = {
    ...(form.policy === "pack" ? { policy: "pack" as const } : {}),
    ...(form.zone.length === 0 ? {} : { zones: form.zone }),
    ...(form.node.length === 0 ? {} : { nodes: form.node }),
    ...given("max_per_node", number("most")),
  };
  const labels = labelsOf(form.label);
  const protection = protectMeantBy(form);
  Object.assign(unread, protection.unread);
  const request: CreateDeployment = {
    ...given("name", text(form.name)),
    source,
    // A fork has as many members as its snapshot.
    ...(kind === "snapshot" ? {} : given("count", number("count"))),
    ...given("min_count", number("least")),
    ...(files ? {} : unless(1, "cpus", number("cpus"))),
    ...(files ? {} : unless(512 * 1024 ** 2, "memory_bytes", size("memory"))),
    ...given("disk_bytes", size("disk")),
    ...(further.disks.length === 0 ? {} : { disks: further.disks }),
    ...(form.firmware === "auto" || files ? {} : { firmware: form.firmware as Schemas["FirmwareChoice"] }),
    ...(form.tpm === "usual" || files ? {} : { tpm: form.tpm === "yes" }),
    ...(files ? { runtime: "none" as const } : {}),
    ...(Object.keys(ready).length === 0 ? {} : { ready: { probe: "running" as const, ...ready } }),
    ...(form.late === "stop" && !files ? { on_ready_timeout: "stop" as const } : {}),
    ...(form.back === "stay" && !files ? { on_host_start: "stay" as const } : {}),
    ...(cards === undefined ? (form.cards === "none" && !files ? { nics: [] } : {}) : { nics: cards.nics }),
    ...(Object.keys(placement).length === 0 ? {} : { placement }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    ...given("protect", protection.protect as CreateDeployment["protect"]),
    ...given("deadline_s", number("deadline")),
  };
  return { request, unread, sourced: form.image !== "" || form.snapshot !== "" || form.version !== "" };
}

const text = (typed: string) => (typed.trim() === "" ? undefined : typed.trim());

function given<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

function unless<K extends string>(fallback: number, key: K, value: number | undefined): { [P in K]?: number } {
  return value === fallback ? {} : given(key, value);
}

const fieldOfPointer: Record<string, Field> = {
  "/name": "name",
  "/count": "count",
  "/min_count": "least",
  "/cpus": "cpus",
  "/memory_bytes": "memory",
  "/disk_bytes": "disk",
  "/runtime": "runtime",
  "/ready/probe": "probe",
  "/ready/marker": "marker",
  "/ready/timeout_s": "timeout",
  "/ready": "probe",
  "/on_ready_timeout": "late",
  "/on_host_start": "back",
  "/firmware": "firmware",
  "/tpm": "tpm",
  "/placement/policy": "policy",
  "/placement/zones": "zone",
  "/placement/nodes": "node",
  "/placement/max_per_node": "most",
  "/placement": "policy",
  "/labels": "label",
  "/deadline_s": "deadline",
  "/ssh_keys": "keys",
  "/user_data": "data",
  "/source/image": "image",
  "/source/snapshot": "snapshot",
  "/source/allow_missing": "snapshot",
};

/** The field that an error of the API is about; undefined if the form has none for it. */
export function fieldOf(pointer: string, form: Form): Field | undefined {
  if (pointer === "/source") return sourceKindOf(form);
  if (pointer === "/source/version") return sourceKindOf(form) === "version" ? "version" : "number";
  const ofPart = cardFieldOf(pointer, form.cards === "chosen") ?? diskFieldOf(pointer) ?? protectFieldOf(pointer);
  if (ofPart !== undefined) return ofPart;
  for (let at = pointer; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
    const field = fieldOfPointer[at];
    if (field !== undefined) return field;
  }
  return undefined;
}

/** The messages of an answer by field, and those that no field is for. */
export function sortErrors(errors: readonly { pointer: string; detail: string }[], form: Form) {
  return errorsByField(errors, (pointer) => fieldOf(pointer, form));
}
