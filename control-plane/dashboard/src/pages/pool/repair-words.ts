/** How far the repair is, in words. Pure; tested in advice.test.ts. */
import type { Schemas } from "../../api/client.ts";
import { bytes, count, duration } from "../../ui/format.ts";

type Amount = Schemas["ObjectAmount"];

/** `12 copies, 3 MiB`. */
export const copies = ({ objects, bytes: size }: Amount) =>
  objects === 0 ? "none" : `${count(objects)} ${objects === 1 ? "copy" : "copies"}, ${bytes(size)}`;

/** How long it takes to send what is missing at the rate of now, in milliseconds; null while nothing is sent. */
export function leftMs(repair: { missing: Amount; bytes_per_s: number }): number | null {
  if (repair.missing.bytes === 0 || repair.bytes_per_s === 0) return null;
  return (1000 * repair.missing.bytes) / repair.bytes_per_s;
}

/** The figures that the repair of one node and that of the pool have in common, as names and values. */
export function repairFacts(
  repair: { missing: Amount; bytes_per_s: number; unchecked_objects: number; copied: Amount },
  began: string,
  endsAt?: string | null,
): [string, string | undefined][] {
  const left = leftMs(repair);
  return [
    ["Missing", copies(repair.missing)],
    ["Rate", repair.bytes_per_s === 0 ? "nothing is sent" : `${bytes(repair.bytes_per_s)}/s`],
    ["Time left", left === null || endsAt ? undefined : `about ${duration(left)}`],
    ["To be compared", repair.unchecked_objects === 0 ? "none" : `${count(repair.unchecked_objects)} objects`],
    [`Sent since ${began}`, copies(repair.copied)],
  ];
}
