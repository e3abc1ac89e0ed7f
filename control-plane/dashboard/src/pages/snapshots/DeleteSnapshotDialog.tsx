import { Stack, Text } from "@mantine/core";
import { type Snapshot, useFreedBySnapshot } from "../../api/snapshots.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../ui/format.ts";
import { NameList } from "../../ui/NameList.tsx";

/** Asks before snapshots are deleted, and says what comes back. */
export function DeleteSnapshotDialog({
  opened,
  snapshots,
  onClose,
  onConfirm,
}: {
  opened: boolean;
  snapshots: Snapshot[];
  onClose: () => void;
  onConfirm: () => Promise<unknown>;
}) {
  const one = snapshots.length === 1 ? snapshots[0] : undefined;
  return (
    <ConfirmDialog
      opened={opened}
      onClose={onClose}
      title={`Delete ${one === undefined ? `${count(snapshots.length)} snapshots` : `snapshot ${one.name}`}?`}
      confirm="Delete"
      danger
      typed={one === undefined ? "delete" : undefined}
      onConfirm={onConfirm}
    >
      <Stack gap="sm">
        {one === undefined && <NameList things={snapshots} />}
        <Text size="sm">
          Its versions are unlinked: nothing new can start from them. Instances that were started from it run on, and
          the instances that it was taken of are not touched. One that is under way is given up.
        </Text>
        {one !== undefined && <Freed snapshot={one} />}
      </Stack>
    </ConfirmDialog>
  );
}

function Freed({ snapshot }: { snapshot: Snapshot }) {
  const freed = useFreedBySnapshot(snapshot, true);
  if (freed.isPending) return <Text size="sm">This frees …</Text>;
  return (
    <Text size="sm">
      {typeof freed.data === "number"
        ? `This frees ${bytes(freed.data)} of the pool, which nothing else uses.`
        : "This frees what nothing else uses. How much that is could not be found out quickly."}
    </Text>
  );
}
