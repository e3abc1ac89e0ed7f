import { Breadcrumbs, Group, Stack, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import type { ReactNode } from "react";
import classes from "./Page.module.css";

interface Props {
  title: string;
  /** Stands beside the title, such as the state. */
  badge?: ReactNode;
  /** One line below the title. */
  subtitle?: ReactNode;
  /** Links to the pages above this one. */
  crumbs?: ReactNode[];
  /** Buttons, on the right. */
  actions?: ReactNode;
  children: ReactNode;
}

/** The frame of every page: where one is, what it is about, what one can do. */
export function Page({ title, badge, subtitle, crumbs = [], actions, children }: Props) {
  useDocumentTitle(`${title} · Muster`);
  return (
    <Stack gap="md" className={classes.page}>
      <header>
        {crumbs.length > 0 && (
          <Breadcrumbs separator="/" separatorMargin={6} className={classes.crumbs}>
            {crumbs}
            <Text span size="xs" lh={1.5} c="dimmed" truncate maw={240}>
              {title}
            </Text>
          </Breadcrumbs>
        )}
        <Group justify="space-between" align="flex-start" gap="sm">
          <Stack gap={2} miw={0}>
            <Group gap="sm" wrap="nowrap">
              <Title order={1} size="h3" className={classes.title}>
                {title}
              </Title>
              {badge}
            </Group>
            {subtitle !== undefined && (
              <Text size="sm" c="dimmed" component="div" className={classes.subtitle}>
                {subtitle}
              </Text>
            )}
          </Stack>
          {actions ? <Group gap="xs">{actions}</Group> : null}
        </Group>
      </header>
      {children}
    </Stack>
  );
}
