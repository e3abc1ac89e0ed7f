import { List, Stack, Text } from "@mantine/core";
import { IconArrowDownRight, IconArrowUpRight } from "@tabler/icons-react";
import type { SecurityRule } from "../../api/security-groups.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";
import classes from "./RuleList.module.css";
import { whatOf, whoOf } from "./rules.ts";

/** The rules of a group in words: what gets in, and what gets out. */
export function RuleList({ rules, project }: { rules: readonly SecurityRule[]; project: string }) {
  return (
    <Stack gap="md">
      <Direction title="Gets in" direction="in" rules={rules} project={project} />
      <Direction title="Gets out" direction="out" rules={rules} project={project} />
    </Stack>
  );
}

function Direction({
  title,
  direction,
  rules,
  project,
}: {
  title: string;
  direction: "in" | "out";
  rules: readonly SecurityRule[];
  project: string;
}) {
  const own = rules.filter((rule) => rule.direction === direction);
  const Icon = direction === "in" ? IconArrowDownRight : IconArrowUpRight;
  return (
    <div>
      <Text size="sm" fw={600} mb={4}>
        {title}
      </Text>
      {own.length === 0 ? (
        <Text size="sm" c="dimmed">
          {direction === "in"
            ? "Nothing, but for answers to what gets out. Another group of the same card may let more in."
            : "Nothing, but for answers to what gets in. Another group of the same card may let more out."}
        </Text>
      ) : (
        <List
          className={classes.rules}
          size="sm"
          spacing={4}
          icon={<Icon size={15} color="var(--state-good)" aria-hidden />}
          center
        >
          {own.map((rule, n) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: rules have no ids, and two may be the same
            <List.Item key={n}>
              {whatOf(rule)} <Who rule={rule} project={project} />
            </List.Item>
          ))}
        </List>
      )}
    </div>
  );
}

function Who({ rule, project }: { rule: SecurityRule; project: string }) {
  const id = rule.from ?? rule.to;
  if (rule.group_name === null || id === null) return whoOf(rule);
  return (
    <>
      {rule.direction === "in" ? "from" : "to"} cards with{" "}
      <ThingLink kind="security_group" id={id} name={rule.group_name} project={project} />
    </>
  );
}
