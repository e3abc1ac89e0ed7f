import { Skeleton, Stack } from "@mantine/core";
import type { ReactNode } from "react";
import { ErrorBox } from "./ErrorBox.tsx";
import { Page } from "./Page.tsx";

/** Stands for a page about a thing until the thing is read, or says why it cannot be. */
export function WaitingPage({
  title,
  error,
  onRetry,
  crumbs,
}: {
  title: string;
  error: unknown;
  onRetry: () => void;
  crumbs?: ReactNode[];
}) {
  return (
    <Page title={title} crumbs={crumbs}>
      {error ? (
        <ErrorBox error={error} title="It cannot be read" onRetry={onRetry} />
      ) : (
        <Stack gap="sm" aria-busy aria-label="Loading">
          <Skeleton height={120} />
          <Skeleton height={220} />
        </Stack>
      )}
    </Page>
  );
}
