import { Code, Group, Stack, Text } from "@mantine/core";
import { IconCircle, IconCircleCheckFilled } from "@tabler/icons-react";
import { CopyId } from "../../ui/CopyId.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import classes from "./FirstSteps.module.css";
import type { Step } from "./first-steps.ts";

/** What to do first, ticked off as it is done. The first step that is left has the button. */
export function FirstSteps({ steps }: { steps: Step[] }) {
  const next = steps.find(({ done }) => !done);
  return (
    <Panel title="First steps" flush>
      <ol className={classes.list}>
        {steps.map((step, index) => (
          <li key={step.key} className={classes.step} data-done={step.done || undefined}>
            {step.done ? (
              <IconCircleCheckFilled size={20} className={classes.tick} aria-label="Done" role="img" />
            ) : (
              <IconCircle size={20} className={classes.open} aria-label="To do" role="img" />
            )}
            <Stack gap={4} flex={1} miw={0} align="flex-start">
              <Text size="sm" fw={600}>
                {index + 1}. {step.title}
              </Text>
              {!step.done && (
                <>
                  <Text size="sm" c="dimmed">
                    {step.text}
                  </Text>
                  <Group gap="sm" mt={4} maw="100%">
                    <ButtonLink
                      size="xs"
                      variant={step === next ? "filled" : "default"}
                      to={step.to}
                      search={step.search as never}
                    >
                      {step.action}
                    </ButtonLink>
                    <Code px={8} py={3} maw="100%">
                      <CopyId value={step.cli} label="command" />
                    </Code>
                  </Group>
                </>
              )}
            </Stack>
          </li>
        ))}
      </ol>
    </Panel>
  );
}
