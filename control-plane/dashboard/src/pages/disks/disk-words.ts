/** What is said about disks, and what can be done with them. Pure; tested in disk-words.test.ts. */
import type { AttachDisk, Disk } from "../../api/disks.ts";
import type { Instance } from "../../api/instances.ts";
import { sizeText } from "../../ui/size.ts";
import { diskSourceText } from "../deployments/wizard/disks.ts";

export type DiskVerb = "grow" | "attach" | "detach" | "keep" | "delete";

/** How the command line names a disk. */
export function namedBy({ id, name, instance_name }: Pick<Disk, "id" | "name" | "instance_name">): string {
  return instance_name === null ? id : `${instance_name}/${name}`;
}

/** What can be done with a disk in its state. The API decides in the end. */
export function verbsFor({ name, state }: Pick<Disk, "name" | "state">): DiskVerb[] {
  // The variables of the firmware have one size, and go with their instance.
  if (name === "nvram") return [];
  switch (state) {
    case "attaching":
      return ["grow"];
    case "attached":
    case "growing":
      return name === "root" ? ["grow"] : ["grow", "detach"];
    case "detaching":
      return ["keep"];
    case "detached":
      return ["attach", "grow", "delete"];
    default:
      return [];
  }
}

/** What the state of a disk means. */
export function diskMeans({ state }: Pick<Disk, "state">): string {
  switch (state) {
    case "attaching":
      return "Its node makes it ready, and its guest gets it.";
    case "attached":
      return "It is one of its instance's disks.";
    case "growing":
      return "Its node makes it larger. A guest that runs sees that by itself; its file systems are the guest's to grow.";
    case "detaching":
      return "Its guest lets it go, then a snapshot saves what it holds, then it belongs to no instance.";
    case "detached":
      return "It belongs to no instance. All that it holds is in its version, and needs no node.";
    default:
      return `Its state is ${state}, a word that this page does not know.`;
  }
}

/** Whether an instance takes further disks in its state. */
export function takesDisks({ state }: Pick<Instance, "state">): boolean {
  return ["pending", "starting", "running", "paused", "stopping", "stopped"].includes(state);
}

/** The line of `muster disk attach` that makes the same call. */
export function attachCommand(instance: string, { disk, name, size_bytes, source }: AttachDisk): string {
  const words = ["muster disk attach", instance];
  if (disk !== undefined) words.push(disk);
  if (name !== undefined) words.push("--name", name);
  if (size_bytes !== undefined) words.push("--size", sizeText(size_bytes));
  if (source !== undefined) words.push(source.image ? "--image" : "--version", diskSourceText(source));
  return words.join(" ");
}
