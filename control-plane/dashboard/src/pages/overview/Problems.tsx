import { Group, Stack, Text } from "@mantine/core";
import { ButtonLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import classes from "./Problems.module.css";
import type { ShownProblem } from "./problems.ts";

/** What someone should look at, worst first, each with its next step. */
export function Problems({ problems }: { problems: ShownProblem[] }) {
  if (problems.length === 0) {
    return (
      <section className={classes.fine} aria-label="Problems">
        <ToneIcon tone="good" size={18} />
        <Text size="sm">Nothing needs attention.</Text>
      </section>
    );
  }
  return (
    <Panel title="Needs attention" flush>
      <ul className={classes.list}>
        {problems.map((problem) => (
          <li key={problem.kind} className={classes.problem} data-tone={problem.tone}>
            <span className={classes.icon}>
              <ToneIcon tone={problem.tone} size={18} />
            </span>
            <Stack gap={1} flex={1} miw={0}>
              <Text size="sm" fw={600}>
                {problem.what}
              </Text>
              <Text size="sm" c="dimmed">
                {problem.next}
              </Text>
            </Stack>
            <Group className={classes.action}>
              <ButtonLink size="xs" variant="default" to={problem.to} search={problem.search as never}>
                {problem.link}
              </ButtonLink>
            </Group>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
