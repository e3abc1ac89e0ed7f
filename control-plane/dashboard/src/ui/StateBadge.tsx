import {
  IconAlertTriangleFilled,
  IconCircleCheckFilled,
  IconCircleDashed,
  IconCircleXFilled,
  IconProgress,
} from "@tabler/icons-react";
import classes from "./StateBadge.module.css";
import { type Tone, toneOf } from "./states.ts";

const icons = {
  good: IconCircleCheckFilled,
  busy: IconProgress,
  warn: IconAlertTriangleFilled,
  bad: IconCircleXFilled,
  idle: IconCircleDashed,
} satisfies Record<Tone, unknown>;

/** The icon of a tone alone. Put a word beside it: colour and form are never the only sign. */
export function ToneIcon({ tone, size = 15 }: { tone: Tone; size?: number }) {
  const Icon = icons[tone];
  return <Icon size={size} className={classes.icon} data-tone={tone} aria-hidden />;
}

/** A state as icon and word, with its reason on hover. `kind="operation"` for states of operations. */
export function StateBadge({ state, kind, reason }: { state: string; kind?: string; reason?: string | null }) {
  return (
    <span className={classes.badge} title={reason ? `${state}: ${reason}` : undefined}>
      <ToneIcon tone={toneOf(state, kind)} />
      <span>{state}</span>
      {reason ? <span className={classes.reason}>{reason}</span> : null}
    </span>
  );
}
