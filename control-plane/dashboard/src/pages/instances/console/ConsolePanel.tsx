import { Skeleton, Text } from "@mantine/core";
import { lazy, Suspense } from "react";
import type { Instance } from "../../../api/instances.ts";
import { Panel } from "../../../ui/Panel.tsx";

const ConsoleLog = lazy(() => import("./ConsoleLog.tsx"));

/**
 * The console of an instance: what it printed. A console that can be typed into will be a second view in this panel, once
 * the API gives tickets for it (`POST /v1/instances/{i}/console`).
 */
export function ConsolePanel({ instance }: { instance: Instance }) {
  if (instance.runtime === "none") {
    return (
      <Panel title="Console">
        <Text size="sm" c="dimmed">
          Its runtime is none: it is a disk file for other programs, without a guest, so there is no console.
        </Text>
      </Panel>
    );
  }
  return (
    <Panel
      title="Console log"
      aside={
        <Text size="xs" c="dimmed">
          serial console, read-only
        </Text>
      }
    >
      <Suspense fallback={<Skeleton height={300} role="status" aria-label="Loading the console" />}>
        <ConsoleLog instance={instance} />
      </Suspense>
    </Panel>
  );
}
