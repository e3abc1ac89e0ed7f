import { percent } from "./format.ts";
import classes from "./ProgressBar.module.css";

interface Props {
  done: number;
  total: number;
  failed?: number;
  /** Says what is counted, for screen readers: `12 of 40 instances`. */
  label: string;
  /** Nothing is known yet but that it goes on. */
  unknown?: boolean;
}

/** How far work is: what is done, what failed, what is left. */
export function ProgressBar({ done, total, failed = 0, label, unknown = false }: Props) {
  const share = (part: number) => (total > 0 ? `${Math.min(100, (100 * part) / total)}%` : "0%");
  return (
    <div
      className={classes.track}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={unknown ? undefined : done}
      aria-valuetext={unknown ? label : `${percent(done, total)}, ${label}`}
      data-unknown={unknown || undefined}
    >
      <div className={classes.done} style={{ width: unknown ? "30%" : share(done) }} />
      {failed > 0 && <div className={classes.failed} style={{ width: share(failed) }} />}
    </div>
  );
}
