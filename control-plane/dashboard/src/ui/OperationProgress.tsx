import { Group, Stack, Text } from "@mantine/core";
import { isUnderWay, type Operation } from "../api/operations.ts";
import { useNow } from "./clock.ts";
import { bytes, count, duration, remainingMs } from "./format.ts";
import { ProgressBar } from "./ProgressBar.tsx";

/** `12 of 40 instances`, `3 MiB of 1 GiB`. */
export function amount({ done, total, unit }: Operation["progress"]): string {
  if (unit === "bytes") return `${bytes(done)} of ${bytes(total)}`;
  return `${count(done)} of ${count(total)} ${unit}`;
}

/** How far an operation is, with a bar and the time it is likely to take; one line for one that has ended. */
export function OperationProgress({ operation, compact = false }: { operation: Operation; compact?: boolean }) {
  const now = useNow();
  const { progress } = operation;
  const going = isUnderWay(operation);
  const failed = progress.failed > 0 ? `, ${count(progress.failed)} failed` : "";
  if (!going) {
    return progress.total > 0 ? (
      <span>
        {progress.unit === "bytes" ? bytes(progress.done) : `${count(progress.done)} of ${count(progress.total)}`}
        {failed}
      </span>
    ) : (
      <>–</>
    );
  }
  const left =
    operation.started_at === null || operation.state === "cancelling"
      ? null
      : remainingMs(progress.done + progress.failed, progress.total, Date.parse(operation.started_at), now);
  const line = `${amount(progress)}${failed}`;
  return (
    <Stack gap={3} w="100%">
      <ProgressBar
        done={progress.done}
        total={progress.total}
        failed={progress.failed}
        label={line}
        unknown={progress.total === 0 || progress.done + progress.failed === 0}
      />
      <Group justify="space-between" gap={6} wrap="nowrap">
        <Text size="xs" lh={1.1} truncate>
          {compact
            ? `${progress.unit === "bytes" ? amount(progress) : `${count(progress.done)}/${count(progress.total)}`}${failed}`
            : line}
        </Text>
        <Text size="xs" lh={1.1} c="dimmed" className="nowrap">
          {left === null ? operation.phase : `${duration(Math.max(1000, left))} left`}
        </Text>
      </Group>
    </Stack>
  );
}
