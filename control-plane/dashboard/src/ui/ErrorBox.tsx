import { Alert, Button, Group, List, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { ApiError } from "../api/client.ts";
import { CopyId } from "./CopyId.tsx";
import { nextStep } from "./next-step.ts";

/** An error of the API as it is: what, which code, which request, and what to do next. */
export function ErrorBox({
  error,
  title,
  onRetry,
}: {
  error: unknown;
  title?: string;
  onRetry?: (() => void) | undefined;
}) {
  const problem = error instanceof ApiError ? error : undefined;
  const next = problem === undefined ? undefined : nextStep(problem);
  return (
    <Alert color="red" icon={<IconAlertTriangle size={18} />} title={title ?? "That did not work"} role="alert">
      <Stack gap="xs" miw={0}>
        <Text size="sm">{problem?.detail ?? (error instanceof Error ? error.message : String(error))}</Text>
        {problem !== undefined && problem.errors.length > 0 && (
          <List size="sm">
            {problem.errors.map((field) => (
              <List.Item key={`${field.pointer} ${field.code}`}>
                <code>{field.pointer}</code>: {field.detail}
              </List.Item>
            ))}
          </List>
        )}
        {next !== undefined && <Text size="sm">{next}</Text>}
        {problem !== undefined && (
          <Group gap="md">
            <Text size="xs">
              code <code>{problem.code}</code>
            </Text>
            {problem.request_id !== undefined && (
              <Text size="xs" component="div" miw={0}>
                request <CopyId value={problem.request_id} label="request id" />
              </Text>
            )}
          </Group>
        )}
        {onRetry !== undefined && (
          <Button size="xs" variant="default" onClick={onRetry} style={{ alignSelf: "flex-start" }}>
            Try again
          </Button>
        )}
      </Stack>
    </Alert>
  );
}
