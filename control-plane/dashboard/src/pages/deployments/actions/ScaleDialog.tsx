import { NumberInput, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { type Deployment, useScale } from "../../../api/deployments.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { count } from "../../../ui/format.ts";
import { watchOperation } from "../../../ui/OperationWatch.tsx";

/** Changes the number of members. */
export function ScaleDialog({ deployment, onClose }: { deployment: Deployment; onClose: () => void }) {
  const [wanted, setWanted] = useState<number | string>(deployment.count);
  const scale = useScale();
  const target = typeof wanted === "number" ? wanted : Number.NaN;
  const more = target - deployment.count;
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`Scale ${deployment.name}`}
      confirm={Number.isNaN(target) ? "Scale" : `Scale to ${count(target)}`}
      danger={more < 0}
      onConfirm={async () => {
        // What is not a number goes to the API too: its answer says what is allowed.
        watchOperation(await scale.mutateAsync({ deployment, count: Number.isNaN(target) ? 0 : target }));
      }}
    >
      <Stack gap="sm">
        <NumberInput
          label="Members"
          description={`Now ${count(deployment.count)}`}
          value={wanted}
          onChange={setWanted}
          min={1}
          allowDecimal={false}
          allowNegative={false}
          clampBehavior="none"
          data-autofocus
        />
        <Text size="sm" aria-live="polite">
          {more > 0
            ? `${count(more)} ${more === 1 ? "member is" : "members are"} added, from the same source. Those that run are left alone.`
            : more < 0
              ? `The ${count(-more)} ${more === -1 ? "member with the highest number is" : "members with the highest numbers are"} deleted, with their disks. To choose which, delete them in the members tab.`
              : "Nothing changes."}
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}
