import { Button, Group, Text } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./BulkBar.module.css";
import { count } from "./format.ts";

/** What can be done with the rows that are chosen in a table. */
export function BulkBar({
  count: chosen,
  onClear,
  children,
}: {
  count: number;
  onClear: () => void;
  children: ReactNode;
}) {
  return (
    <Group gap="xs" className={classes.bar} role="toolbar" aria-label="Actions for what is chosen">
      <Text size="sm" fw={500}>
        {count(chosen)} chosen
      </Text>
      {children}
      <Button size="compact-xs" variant="subtle" ml="auto" onClick={onClear}>
        Clear
      </Button>
    </Group>
  );
}
