/** What a dry run means for the one who asks. Pure; tested in verdict.test.ts. */
import type { DryRun } from "../../../api/deployments.ts";
import { count } from "../../../ui/format.ts";
import type { Tone } from "../../../ui/states.ts";

export interface Verdict {
  tone: Tone;
  title: string;
  means?: string;
}

/** `least` is how many have to fit; all if it is left out. */
export function verdictOf({ placed, unplaced }: Pick<DryRun, "placed" | "unplaced">, least?: number): Verdict {
  const total = placed + unplaced;
  if (unplaced === 0) {
    return { tone: "good", title: total === 1 ? "It fits." : `All ${count(total)} fit.` };
  }
  const title = placed === 0 ? "None fits." : `${count(placed)} of ${count(total)} fit.`;
  if (least === undefined || placed < least) {
    return {
      tone: "bad",
      title,
      means: `Nothing would start: ${least === undefined ? "all" : `at least ${count(least)}`} have to fit.`,
    };
  }
  return {
    tone: "warn",
    title,
    means: `Those would start. The other ${count(unplaced)} would fail with no_capacity; retry tries them again.`,
  };
}
