/** What an operator should know about the pool, and what to do about it. Pure; tested in advice.test.ts. */
import type { Pool, Sweep } from "../../api/pools.ts";
import { type Advice, worstFirst } from "../../ui/AdviceList.tsx";
import { bytes, count, duration, percent } from "../../ui/format.ts";
import { leftMs } from "./repair-words.ts";

/** With less than this share free a pool is a problem before it is full. */
export const poolWarnAt = 0.9;

/** Whether only an operator's word is missing for the sweep: the database was restored. The reason names the command. */
export function awaitsWord(sweep: Sweep): boolean {
  return sweep.state === "held" && (sweep.reason?.includes("--after-restore") ?? false);
}

/** `3 copies of objects are missing`. */
export const missingWords = ({ repair: { missing } }: Pool) =>
  missing.objects === 1 ? "1 copy of an object is missing" : `${count(missing.objects)} copies of objects are missing`;

/** What becomes of the copies that are missing. */
export function repairNext({ repair }: Pool): string {
  const left = leftMs(repair);
  return left === null
    ? "Nodes try to send them at most 10 minutes later. Look for nodes that are silent, or full."
    : `Nodes make them again with ${bytes(repair.bytes_per_s)}/s; that takes about ${duration(left)} more.`;
}

/** Everything about the pool that someone should look at, worst first. */
export function adviceForPool(pool: Pool): Advice[] {
  const { sweep, usage, repair } = pool;
  const list: Advice[] = [];
  if (sweep.state === "held") {
    list.push({
      key: "sweep_held",
      tone: "warn",
      title: "The sweep is held: nothing is given back",
      detail: sweep.reason ?? undefined,
      next: awaitsWord(sweep)
        ? "Decide first about the instances that the database does not know. Then allow the sweep here."
        : "It goes on by itself once that is over. Nothing is lost meanwhile, but the pool does not shrink.",
    });
  }
  if (repair.missing.objects > 0) {
    list.push({
      key: "copies_missing",
      tone: repair.bytes_per_s > 0 ? "busy" : "warn",
      title: missingWords(pool),
      next: repairNext(pool),
    });
  }
  if (usage.lost_objects > 0) {
    list.push({
      key: "objects_lost",
      tone: "bad",
      title: `Nodes lost ${count(usage.lost_objects)} ${usage.lost_objects === 1 ? "copy" : "copies"}, ${bytes(usage.lost_bytes)}`,
      next: "Other nodes send back what they have. The pages of the nodes that lost them say what is to be done about the rest.",
    });
  }
  if (usage.limit_bytes > 0 && usage.used_bytes / usage.limit_bytes >= poolWarnAt) {
    list.push({
      key: "pool_full",
      tone: usage.used_bytes >= usage.limit_bytes ? "bad" : "warn",
      title: `The pool is ${percent(usage.used_bytes, usage.limit_bytes)} full`,
      next: "Delete what nobody needs and sweep, raise the limits of the nodes' shares, or add a node.",
    });
  }
  if (pool.nodes < pool.min_copies) {
    list.push({
      key: "few_nodes",
      tone: "idle",
      title: `Objects have ${pool.nodes === 1 ? "1 copy" : `${count(pool.nodes)} copies`}, and should have ${count(pool.min_copies)}`,
      next: "Add a node: the further copies are made by themselves.",
    });
  }
  return worstFirst(list);
}
