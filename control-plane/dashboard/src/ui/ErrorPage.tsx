import { Box } from "@mantine/core";
import type { ErrorComponentProps } from "@tanstack/react-router";
import { ErrorBox } from "./ErrorBox.tsx";

/** Stands for a page that could not be drawn. */
export function ErrorPage({ error, reset }: ErrorComponentProps) {
  return (
    <Box p="lg" maw={720}>
      <ErrorBox error={error} title="This page cannot be shown" onRetry={reset} />
    </Box>
  );
}
