/** How it stands with a console, in words. Pure; tested in phase-words.test.ts. */
import type { Tone } from "../../../ui/states.ts";
import { delaysMs, type Phase } from "./connection.ts";

const attempts = delaysMs.length + 1;

/** `what` is what is open when it is open: `You may type.` */
export function phaseWords(phase: Phase, what: string): { tone: Tone; text: string } {
  switch (phase.at) {
    case "idle":
      return { tone: "idle", text: "Not connected." };
    case "opening":
      return {
        tone: "busy",
        text: phase.attempt > 1 ? `Connecting again, attempt ${phase.attempt} of ${attempts}…` : "Connecting…",
      };
    case "open":
      return { tone: "good", text: what };
    case "waiting": {
      const wait = phase.delayMs / 1000;
      return {
        tone: "warn",
        text: `The connection broke. It is tried again in ${wait} s, attempt ${phase.attempt + 1} of ${attempts}.`,
      };
    }
    case "ended":
      return { tone: "idle", text: `Closed: ${phase.reason}${/[.!?]$/.test(phase.reason) ? "" : "."}` };
  }
}
