import { Stack, Text } from "@mantine/core";
import { type Deployment, useDeleteDeployment, useFreedBy } from "../../../api/deployments.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../../ui/format.ts";
import { watchOperation } from "../../../ui/OperationWatch.tsx";

/** Deletes a deployment, after it said what goes and what comes back. */
export function DeleteDialog({ deployment, onClose }: { deployment: Deployment; onClose: () => void }) {
  const remove = useDeleteDeployment();
  const freed = useFreedBy(deployment, true);
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`Delete ${deployment.name}?`}
      confirm="Delete"
      danger
      typed={deployment.name}
      onConfirm={async () => watchOperation(await remove.mutateAsync(deployment))}
    >
      <Stack gap="xs">
        <Text size="sm">
          {deployment.count === 1 ? "Its member is" : `Its ${count(deployment.count)} members are`} deleted with{" "}
          {deployment.count === 1 ? "its disk" : "their disks"}. This cannot be undone. Snapshots of it stay, and so
          does what was made of them.
        </Text>
        {(deployment.local_bytes ?? 0) > 0 && (
          <Text size="sm">
            Its guests wrote {bytes(deployment.local_bytes)} that are on their nodes only. What of it is in no snapshot
            is lost.
          </Text>
        )}
        <Text size="sm" aria-live="polite">
          {freed.isPending
            ? "Reading how much comes back …"
            : freed.error !== null
              ? `How much comes back cannot be read: ${freed.error.message}`
              : freed.data === null
                ? "How much of the pool comes back is not known."
                : freed.data === 0
                  ? "Nothing of the pool comes back: other versions use the same bytes."
                  : `${bytes(freed.data)} of the pool come back (one copy): nothing else uses them.`}
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}
