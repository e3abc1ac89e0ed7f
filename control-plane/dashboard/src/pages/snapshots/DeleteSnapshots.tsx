import { Button } from "@mantine/core";
import { useState } from "react";
import { type Snapshot, useDeleteSnapshot } from "../../api/snapshots.ts";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { DeleteSnapshotDialog } from "./DeleteSnapshotDialog.tsx";

/** Deletes the chosen snapshots. The API deletes one at a time. */
export function DeleteSnapshots({ snapshots, onDone }: { snapshots: Snapshot[]; onDone: () => void }) {
  const [asking, setAsking] = useState(false);
  const remove = useDeleteSnapshot();
  return (
    <>
      <Button size="compact-sm" color="red" onClick={() => setAsking(true)}>
        Delete
      </Button>
      <DeleteSnapshotDialog
        opened={asking}
        snapshots={snapshots}
        onClose={() => setAsking(false)}
        onConfirm={async () => {
          for (const snapshot of snapshots) watchOperation(await remove.mutateAsync(snapshot));
          onDone();
        }}
      />
    </>
  );
}
