/** How far the repair is, in words. Pure; tested in advice.test.ts. */
import type { Schemas } from "../../api/client.ts";
import { bytes, count, duration } from "../../ui/format.ts";

type Amount = Schemas["ObjectAmount"];

/** `12 objects, 3 MiB`; the size is left out where it is not known. */
export function amountText({ objects, bytes: size }: Amount, one: string, many: string): string {
  if (objects === 0) return "none";
  return `${count(objects)} ${objects === 1 ? one : many}${size === 0 ? "" : `, ${bytes(size)}`}`;
}

/** `12 copies, 3 MiB`. */
export const copies = (amount: Amount) => amountText(amount, "copy", "copies");

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
