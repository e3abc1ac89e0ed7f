import { Stack } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./TwoColumns.module.css";

/** What a page is about, and beside it the facts about that. One below the other where the window is narrow. */
export function TwoColumns({ children, side }: { children: ReactNode; side: ReactNode }) {
  return (
    <div className={classes.columns}>
      <Stack gap="md" miw={0}>
        {children}
      </Stack>
      <Stack gap="md" miw={0} className={classes.side}>
        {side}
      </Stack>
    </div>
  );
}
