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

interface BadgeProps {
  state: string;
  /** `operation` for states of operations. */
  kind?: string;
  reason?: string | null;
  /** Where the state alone does not say how well the thing is. */
  tone?: Tone;
}

/** A state as icon and word, with its reason in words, and as the API writes it on hover. */
export function StateBadge({ state, kind, reason, tone = toneOf(state, kind) }: BadgeProps) {
  return (
    <span className={classes.badge} title={reason ? `${state}: ${reason}` : undefined}>
      <ToneIcon tone={tone} />
      <span>{state}</span>
      {reason ? <span className={classes.reason}>{reason.replaceAll("_", " ")}</span> : null}
    </span>
  );
}
