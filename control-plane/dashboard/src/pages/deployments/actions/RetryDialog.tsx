import { NumberInput, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { type Deployment, useRetry } from "../../../api/deployments.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { count } from "../../../ui/format.ts";
import { watchOperation } from "../../../ui/OperationWatch.tsx";

/** Tries failed members again. */
export function RetryDialog({ deployment, onClose }: { deployment: Deployment; onClose: () => void }) {
  const before = deployment.ready_when.timeout_s ?? undefined;
  const [timeout, setTimeout] = useState<number | string>(before ?? "");
  const retry = useRetry();
  const failed = deployment.counts.failed ?? 0;
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`Retry ${deployment.name}?`}
      confirm="Retry"
      onConfirm={async () => {
        const changed = typeof timeout === "number" && timeout !== before;
        watchOperation(await retry.mutateAsync({ deployment, ...(changed ? { readyTimeoutS: timeout } : {}) }));
      }}
    >
      <Stack gap="sm">
        <Text size="sm">
          {failed > 0
            ? `${count(failed)} failed ${failed === 1 ? "member is" : "members are"} started again`
            : "Members that were not ready in time are waited for again"}
          . Members that are ready are left alone.
        </Text>
        <NumberInput
          label="Seconds until a member has to be ready"
          description="Holds from now on"
          value={timeout}
          onChange={setTimeout}
          min={1}
          allowDecimal={false}
          allowNegative={false}
          clampBehavior="none"
        />
      </Stack>
    </ConfirmDialog>
  );
}
