import { Button, List, Text } from "@mantine/core";
import { useState } from "react";
import { isUnderWay, type Operation, useCancelOperation } from "../../api/operations.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { titleOf } from "../../ui/operation-title.ts";

/** Cancels the chosen operations that still go on. The API cancels one at a time. */
export function CancelMany({ operations, onDone }: { operations: Operation[]; onDone: () => void }) {
  const [asking, setAsking] = useState(false);
  const cancel = useCancelOperation();
  const going = operations.filter(isUnderWay);
  return (
    <>
      <Button size="compact-sm" color="red" disabled={going.length === 0} onClick={() => setAsking(true)}>
        Cancel
      </Button>
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={going.length === 1 ? "Cancel this operation?" : `Cancel ${going.length} operations?`}
        confirm="Cancel them"
        danger
        onConfirm={async () => {
          for (const operation of going) watchOperation(await cancel.mutateAsync(operation));
          onDone();
        }}
      >
        <Text size="sm">What is done already stays done. Those that have ended are left alone.</Text>
        <List size="sm" mt="xs">
          {going.slice(0, 10).map((operation) => (
            <List.Item key={operation.id}>{titleOf(operation)}</List.Item>
          ))}
          {going.length > 10 && <List.Item>and {going.length - 10} more</List.Item>}
        </List>
      </ConfirmDialog>
    </>
  );
}
