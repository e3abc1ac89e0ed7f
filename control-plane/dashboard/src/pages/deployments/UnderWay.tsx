import { Button, Group, Stack, Text } from "@mantine/core";
import { type Deployment, useOperationsUnderWay } from "../../api/deployments.ts";
import { type Operation, useCancelOperation } from "../../api/operations.ts";
import { OperationProgress } from "../../ui/OperationProgress.tsx";
import { titleOf } from "../../ui/operation-title.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { toastError } from "../../ui/toast.tsx";

/** The operations that go on with a deployment, with their bars. Nothing is shown while there are none. */
export function UnderWay({ deployment }: { deployment: Deployment }) {
  const { data } = useOperationsUnderWay(deployment);
  const operations = data?.items ?? [];
  if (operations.length === 0) return null;
  return (
    <Panel title="Under way">
      <Stack gap="md">
        {operations.slice(0, 5).map((operation) => (
          <Line key={operation.id} operation={operation} />
        ))}
        {operations.length > 5 && (
          <Text size="xs" c="dimmed">
            and {operations.length - 5} more
          </Text>
        )}
      </Stack>
    </Panel>
  );
}

function Line({ operation }: { operation: Operation }) {
  const cancel = useCancelOperation();
  return (
    <Stack gap={6}>
      <Group justify="space-between" gap="sm" wrap="nowrap">
        <Text size="sm" component="div" truncate>
          <ThingLink kind="operation" id={operation.id} name={titleOf(operation)} project={operation.project} />
        </Text>
        {operation.state !== "cancelling" && (
          <Button
            size="compact-xs"
            variant="default"
            loading={cancel.isPending}
            onClick={() => cancel.mutate(operation, { onError: (error) => toastError(error) })}
          >
            Cancel
          </Button>
        )}
      </Group>
      <OperationProgress operation={operation} />
      {operation.waiting_on[0] !== undefined && (
        <Text size="xs" c="dimmed">
          Waits for {operation.waiting_on[0].what}
          {operation.waiting_on[0].node_name ? ` on ${operation.waiting_on[0].node_name}` : ""}
        </Text>
      )}
    </Stack>
  );
}
