/**
 * What each state means for the one who looks: the same colour and icon everywhere. A state of an operation is not the
 * same as one of an instance: an instance that runs is fine, an operation that runs is under way.
 */
export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

const tones: Record<string, Tone> = {
  // things
  ready: "good",
  attached: "good",
  running: "good",
  joining: "busy",
  attaching: "busy",
  growing: "busy",
  detaching: "busy",
  deploying: "busy",
  pending: "busy",
  starting: "busy",
  stopping: "busy",
  migrating: "busy",
  deleting: "busy",
  leaving: "busy",
  cutting: "busy",
  marking: "busy",
  draining: "busy",
  sweeping: "busy",
  saving: "busy",
  degraded: "warn",
  paused: "warn",
  silent: "warn",
  held: "warn",
  unknown: "warn",
  failed: "bad",
  fenced: "bad",
  stopped: "idle",
  shelved: "idle",
  empty: "idle",
  detached: "idle",
  drained: "idle",
  idle: "idle",
  deleted: "idle",
};

const operationTones: Record<string, Tone> = {
  pending: "busy",
  running: "busy",
  cancelling: "busy",
  succeeded: "good",
  failed: "bad",
  cancelled: "idle",
};

/** The tone of a state; states that this version does not know draw attention. */
export function toneOf(state: string, kind?: string): Tone {
  return (kind === "operation" ? operationTones[state] : tones[state]) ?? "warn";
}
