import { expect, test } from "vitest";
import { phaseWords } from "./phase-words.ts";

test("each phase is told, with what comes next", () => {
  const text = (phase: Parameters<typeof phaseWords>[0]) => phaseWords(phase, "You may type.").text;
  expect(text({ at: "opening", attempt: 1 })).toBe("Connecting…");
  expect(text({ at: "opening", attempt: 3 })).toBe("Connecting again, attempt 3 of 7…");
  expect(text({ at: "open" })).toBe("You may type.");
  expect(text({ at: "waiting", attempt: 2, delayMs: 2000 })).toBe(
    "The connection broke. It is tried again in 2 s, attempt 3 of 7.",
  );
  expect(text({ at: "ended", reason: "the guest has ended" })).toBe("Closed: the guest has ended.");
  expect(text({ at: "idle" })).toBe("Not connected.");
});
