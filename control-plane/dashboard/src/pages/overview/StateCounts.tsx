import { Text } from "@mantine/core";
import { count } from "../../ui/format.ts";
import { TextLink } from "../../ui/links.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { type Tone, toneOf } from "../../ui/states.ts";
import { total } from "./first-steps.ts";
import classes from "./StateCounts.module.css";

interface Props {
  title: string;
  to: "/deployments" | "/instances" | "/images" | "/snapshots" | "/nodes";
  states: Record<string, number>;
}

/** What draws attention comes first. */
const order: Record<Tone, number> = { bad: 0, warn: 1, busy: 2, good: 3, idle: 4 };

/** How many of a noun there are in each state; each state leads to those. */
export function StateCounts({ title, to, states }: Props) {
  const shown = Object.entries(states)
    .filter(([state, number]) => number > 0 && state !== "deleted")
    .map(([state, number]) => ({ state, number, tone: toneOf(state) }))
    .sort((a, b) => order[a.tone] - order[b.tone] || b.number - a.number);
  return (
    <section className={classes.card} aria-label={title}>
      <div className={classes.head}>
        <TextLink to={to} className={classes.title}>
          {title}
        </TextLink>
        <span className={classes.total}>{count(total(states))}</span>
      </div>
      <div className={classes.bar} aria-hidden>
        {shown.map(({ state, number, tone }) => (
          <div key={state} data-tone={tone} style={{ flexGrow: number }} />
        ))}
      </div>
      {shown.length === 0 ? (
        <Text size="xs" c="dimmed">
          None
        </Text>
      ) : (
        <ul className={classes.states}>
          {shown.map(({ state, number, tone }) => (
            <li key={state}>
              <TextLink to={to} search={{ state: [state] } as never} className={classes.state}>
                <ToneIcon tone={tone} size={13} />
                {state} <b>{count(number)}</b>
              </TextLink>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
