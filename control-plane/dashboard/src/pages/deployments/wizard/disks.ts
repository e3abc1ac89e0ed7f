/**
 * The disks of the members beside the boot disk: what was typed, its form in the URL, and what it means. Pure; tested in
 * disks.test.ts.
 */
import type { Schemas } from "../../../api/client.ts";
import type { Deployment } from "../../../api/deployments.ts";
import { sizeHint, sizeOf, sizeText } from "../../../ui/size.ts";
import { guarded, plain } from "./cards.ts";

type CreateDisk = Schemas["CreateDisk"];
type DiskSource = Schemas["DiskSource"];

/** A further disk of each member. */
export interface FurtherDisk {
  name: string;
  size: string;
  /** As the command line has it: `debian`, `debian@2` or the id of a version. Empty: it is blank. */
  source: string;
}

export const mostDisks = 16;

/** What an error about further disks can be about: the place of the disk and its field, or all of them. */
export type DiskField = "disks" | `disk/${number}/${keyof FurtherDisk}`;

/** A disk as the URL has it: `data;20 GiB;debian@2`. */
export function diskText({ name, size, source }: FurtherDisk): string {
  return [name, size, source].map(guarded).join(";").replace(/;+$/, "");
}

/** Reads the URL's form of a disk. */
export function diskOf(text: string): FurtherDisk {
  const [name = "", size = "", source = ""] = text.split(";").map(plain);
  return { name, size, source };
}

/** A disk to begin with, under a name that no other has. */
export function anotherDisk(disks: readonly FurtherDisk[]): FurtherDisk {
  const names = disks.map(({ name }) => name);
  let name = "data";
  for (let n = 2; names.includes(name); n += 1) name = `data-${n}`;
  return { name, size: "10 GiB", source: "" };
}

const versionId = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What a disk starts as; undefined if it is blank. */
export function diskSourceOf(text: string): DiskSource | undefined {
  const source = text.trim();
  if (source === "") return undefined;
  if (versionId.test(source)) return { version: source };
  const numbered = /^(.+)@(\d{1,15})$/.exec(source);
  return numbered === null ? { image: source } : { image: numbered[1], version: Number(numbered[2]) };
}

/** The same as the command line has it. `name` stands for an image that is known by its id. */
export function diskSourceText(source: DiskSource | null | undefined, name?: string | null): string {
  if (!source) return "";
  const image = source.image && (name ?? source.image);
  return [image, source.version].filter(Boolean).join("@");
}

/** The disks as a request has them, and what cannot be read, by field. */
export function disksOf(disks: readonly FurtherDisk[]) {
  const unread: Partial<Record<DiskField, string>> = {};
  const read = disks.map(({ name, size, source }, place): CreateDisk => {
    const size_bytes = sizeOf(size);
    if (size_bytes === null) unread[`disk/${place}/size`] = sizeHint;
    const from = diskSourceOf(source);
    return { name: name.trim(), size_bytes: size_bytes ?? 0, ...(from === undefined ? {} : { source: from }) };
  });
  return { disks: read, unread };
}

const fields: Record<string, keyof FurtherDisk> = { name: "name", size_bytes: "size", source: "source" };

/** The field that an error of the API is about, if it is about further disks. */
export function diskFieldOf(pointer: string): DiskField | undefined {
  const [, first, place, field = ""] = pointer.split("/");
  if (first !== "disks") return undefined;
  return place === undefined ? "disks" : `disk/${Number(place)}/${fields[field] ?? "name"}`;
}

/** What the wizard is filled with to make disks like those of a deployment. A fork gets those of its snapshot by itself. */
export function disksLike({ disks, source }: Deployment): string[] {
  return disks
    .filter((disk) => !source.snapshot || disk.source !== null)
    .map(({ name, size_bytes, source: from, source_name }) =>
      diskText({ name, size: sizeText(size_bytes), source: diskSourceText(from, source_name) }),
    );
}
