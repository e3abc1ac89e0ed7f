import { Group, Text } from "@mantine/core";
import { percent } from "../../ui/format.ts";
import classes from "./Meter.module.css";

interface Props {
  /** What is used, for screen readers and above the bar: `Memory`. */
  label: string;
  used: number;
  total: number;
  /** How amounts read. */
  format: (value: number) => string;
  /** One line as high as a row of a table. */
  compact?: boolean;
  /** Whether little room is left is worth a colour. Processors may be over-committed. */
  warns?: boolean;
}

/** How much of something is in use, as a bar and in words. */
export function Meter({ label, used, total, format, compact = false, warns = true }: Props) {
  const share = total > 0 ? Math.min(1, used / total) : 0;
  const level = !warns || share < 0.85 ? "good" : share < 0.95 ? "warn" : "bad";
  const words = `${format(used)} of ${format(total)}`;
  const bar = (
    // biome-ignore lint/a11y/useSemanticElements: each browser draws its own <meter>, which cannot look like the rest
    <div
      className={classes.track}
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={Math.min(used, total)}
      aria-valuetext={`${percent(used, total)}, ${words}`}
    >
      {share > 0 && <div className={classes.used} data-level={level} style={{ width: `${100 * share}%` }} />}
    </div>
  );
  if (compact) {
    return (
      <div className={classes.compact} title={`${label}: ${words}`}>
        {bar}
        <span className={classes.share}>{percent(used, total)}</span>
      </div>
    );
  }
  return (
    <div className={classes.full}>
      <Group justify="space-between" gap={8} wrap="nowrap">
        <Text size="sm">{label}</Text>
        <Text size="sm" c="dimmed" className="nowrap">
          {words} · {percent(used, total)}
        </Text>
      </Group>
      {bar}
    </div>
  );
}
