import { Button, Stack, Table, Text } from "@mantine/core";
import { IconPlayerStop } from "@tabler/icons-react";
import { useParams } from "@tanstack/react-router";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { isUnderWay, useCancelOperation, useOperation } from "../../api/operations.ts";
import { useCommands } from "../../commands/registry.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { duration } from "../../ui/format.ts";
import { JsonView } from "../../ui/JsonView.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { OperationProgress } from "../../ui/OperationProgress.tsx";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { titleOf } from "../../ui/operation-title.ts";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { tookMs } from "./columns.tsx";
import { RestoreResult } from "./RestoreResult.tsx";
import { Took } from "./Took.tsx";

/** One operation: how far it is, what it waits for, and why it failed if it did. */
export default function OperationDetail() {
  const { operation: id } = useParams({ from: "/framed/operations/$operation" });
  const { data: operation, error, refetch } = useOperation(id);
  const [asking, setAsking] = useState(false);
  const cancel = useCancelOperation();
  const going = operation !== undefined && isUnderWay(operation);
  const cancellable = going && operation.state !== "cancelling";
  useCommands(
    () => (cancellable ? [{ id: "cancel", title: "Cancel this operation", run: () => setAsking(true) }] : []),
    [cancellable],
  );
  if (operation === undefined) {
    return <WaitingPage title="Operation" error={error} onRetry={() => void refetch()} />;
  }
  return (
    <Page
      title={titleOf(operation)}
      badge={<StateBadge kind="operation" state={operation.state} />}
      crumbs={[
        <TextLink key="list" to="/operations">
          Operations
        </TextLink>,
      ]}
      subtitle={
        <>
          {operation.requested_by} asked for it <TimeAgo time={operation.created_at} />
        </>
      }
      actions={
        cancellable && (
          <Button
            size="xs"
            variant="default"
            leftSection={<IconPlayerStop size={15} />}
            onClick={() => setAsking(true)}
          >
            Cancel
          </Button>
        )
      }
    >
      {operation.error !== null && (
        <ErrorBox
          title="It failed"
          error={new ApiError(operation.error.status, { request_id: operation.request_id, ...operation.error })}
        />
      )}
      <Panel title={going ? `Now: ${operation.phase}` : "Outcome"}>
        <Stack gap="md">
          {operation.progress.total > 0 && <OperationProgress operation={operation} />}
          <KeyValues
            items={[
              ["Target", <ThingLink key="target" {...operation.target} project={operation.project} />],
              ["Phase", operation.phase],
              [
                going ? "Takes so far" : "Took",
                going ? <Took key="took" operation={operation} /> : duration(tookMs(operation, 0)),
              ],
              [
                "Waited before it began",
                operation.started_at === null
                  ? undefined
                  : duration(Date.parse(operation.started_at) - Date.parse(operation.created_at)),
              ],
              ["Gives up", going ? <TimeAgo key="deadline" time={operation.deadline} /> : undefined],
              ["Ended", going ? undefined : <TimeAgo key="ended" time={operation.finished_at} />],
              ["Project", operation.project],
              ["Request", <CopyId key="request" value={operation.request_id} label="request id" />],
              ["Id", <CopyId key="id" value={operation.id} />],
            ]}
          />
        </Stack>
      </Panel>
      <RestoreResult operation={operation} />
      {operation.waiting_on.length > 0 && (
        <Panel title="Waits for" flush>
          <Table.ScrollContainer minWidth={420}>
            <Table>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>What</Table.Th>
                  <Table.Th>Node</Table.Th>
                  <Table.Th>Since</Table.Th>
                  <Table.Th>Until</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {operation.waiting_on.map((wait) => (
                  <Table.Tr key={`${wait.what} ${wait.node ?? ""}`}>
                    <Table.Td>{wait.what}</Table.Td>
                    <Table.Td>
                      {wait.node === undefined ? (
                        "–"
                      ) : (
                        <ThingLink kind="node" id={wait.node} name={wait.node_name ?? null} />
                      )}
                    </Table.Td>
                    <Table.Td>
                      <TimeAgo time={wait.since} />
                    </Table.Td>
                    <Table.Td>
                      <TimeAgo time={wait.deadline} />
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          {operation.waiting_on.length === 20 && (
            <Text size="xs" c="dimmed" p="sm">
              The first 20 are shown.
            </Text>
          )}
        </Panel>
      )}
      {operation.result !== null && (
        <Panel title="Result">
          <JsonView value={operation.result} label="result" />
        </Panel>
      )}
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={`Cancel "${titleOf(operation)}"?`}
        confirm="Cancel the operation"
        danger
        onConfirm={async () => watchOperation(await cancel.mutateAsync(operation))}
      >
        <Text size="sm">
          What is done already stays done: members that are ready stay, a snapshot publishes nothing.
        </Text>
      </ConfirmDialog>
    </Page>
  );
}
