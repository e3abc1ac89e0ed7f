import { Group, Title } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./Panel.module.css";

interface Props {
  title?: string;
  /** Stands at the right of the title. */
  aside?: ReactNode;
  children: ReactNode;
  /** Without room at the edges, for a table. */
  flush?: boolean;
}

/** A part of a page in a box of its own. */
export function Panel({ title, aside, children, flush = false }: Props) {
  return (
    <section className={classes.panel} aria-label={title}>
      {(title !== undefined || aside !== undefined) && (
        <Group justify="space-between" className={classes.head}>
          {title !== undefined && (
            <Title order={2} size="sm">
              {title}
            </Title>
          )}
          {aside}
        </Group>
      )}
      <div className={flush ? undefined : classes.body}>{children}</div>
    </section>
  );
}
