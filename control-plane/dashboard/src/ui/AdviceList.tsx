import { Text } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./AdviceList.module.css";
import { Panel } from "./Panel.tsx";
import { ToneIcon } from "./StateBadge.tsx";
import type { Tone } from "./states.ts";

/** Something that someone should look at. */
export interface Advice {
  key: string;
  tone: Tone;
  title: string;
  /** What the thing itself says. */
  detail?: string | undefined;
  next: string;
}

const order: Record<Tone, number> = { bad: 0, warn: 1, busy: 2, idle: 3, good: 4 };

/** The worst first; otherwise as they were. */
export function worstFirst(list: readonly Advice[]): Advice[] {
  return list.toSorted((a, b) => order[a.tone] - order[b.tone]);
}

/** What is wrong with a thing, and what to do. Nothing where all is well. */
export function AdviceList({ advice, action }: { advice: Advice[]; action?: (advice: Advice) => ReactNode }) {
  if (advice.length === 0) return null;
  return (
    <Panel title="Needs attention" flush>
      <ul className={classes.advice}>
        {advice.map((one) => (
          <li key={one.key} data-tone={one.tone}>
            <span className={classes.icon}>
              <ToneIcon tone={one.tone} size={18} />
            </span>
            <div className={classes.words}>
              <Text size="sm" fw={600}>
                {one.title}
              </Text>
              {one.detail !== undefined && (
                <Text size="sm" className={classes.detail}>
                  {one.detail}
                </Text>
              )}
              <Text size="sm" c="dimmed">
                {one.next}
              </Text>
            </div>
            {action?.(one)}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
