import { Code, Stack, Text, ThemeIcon } from "@mantine/core";
import { IconInbox } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { CopyId } from "./CopyId.tsx";

interface Props {
  title: string;
  /** What to do next. */
  children?: ReactNode;
  /** The button that does it. */
  action?: ReactNode;
  /** The command line that does the same. */
  cli?: string;
  icon?: ReactNode;
}

/** What is shown where nothing is: what this place is for, and how to fill it. */
export function EmptyState({ title, children, action, cli, icon }: Props) {
  return (
    <Stack align="center" gap="sm" py={48} px="md" ta="center">
      <ThemeIcon variant="light" color="gray" size={44} radius="xl">
        {icon ?? <IconInbox size={24} />}
      </ThemeIcon>
      <Text fw={600}>{title}</Text>
      {children !== undefined && (
        <Text size="sm" c="dimmed" maw={460} component="div">
          {children}
        </Text>
      )}
      {action}
      {cli !== undefined && (
        <Code px="sm" py={4} maw="100%">
          <CopyId value={cli} label="command" />
        </Code>
      )}
    </Stack>
  );
}
