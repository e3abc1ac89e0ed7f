import { Text } from "@mantine/core";
import type { Operation } from "../../api/operations.ts";
import { count } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";

/** What a restore of a snapshot left behind: where the content is that the disks had before. */
export function RestoreResult({ operation }: { operation: Operation }) {
  if (operation.kind !== "snapshot.restore" || operation.state !== "succeeded") return null;
  const result = (operation.result ?? {}) as Record<string, unknown>;
  const number = (key: string) => (typeof result[key] === "number" ? (result[key] as number) : 0);
  const kept = typeof result.kept_snapshot === "string" ? result.kept_snapshot : undefined;
  const leftOut = Array.isArray(result.left_out) ? result.left_out.length : 0;
  return (
    <Panel title="What it did">
      <Text size="sm">
        {count(number("disks"))} disks of {count(number("instances"))} instances have the content of the snapshot
        {leftOut > 0 && `, ${count(leftOut)} were left out`}. What they held before{" "}
        {kept === undefined ? (
          "is given up."
        ) : (
          <>
            is kept in{" "}
            <ThingLink
              kind="snapshot"
              id={kept}
              name={typeof result.kept_snapshot_name === "string" ? result.kept_snapshot_name : kept}
              project={operation.project}
            />
            .
          </>
        )}
      </Text>
    </Panel>
  );
}
