import { Alert, Group, List, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { PoolRepository } from "../../api/pools.ts";
import { duration } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { amountText } from "./repair-words.ts";

const tones = { ok: "good", behind: "busy", failing: "bad", unknown: "warn" } as const;

/** The S3-compatible store that has the objects of the pool, too. */
export function RepositoryPanel({ repository }: { repository: PoolRepository }) {
  const { state, url, write, trouble, behind, oldest_behind_s: oldest } = repository;
  return (
    <Panel title="Repository">
      <Stack gap="md">
        <Group gap="sm">
          <StateBadge state={state} tone={tones[state] ?? "warn"} />
          <Text size="sm" c="dimmed" style={{ overflowWrap: "anywhere" }}>
            {url},{" "}
            {write === "through"
              ? "written before anything is published"
              : "written soon after objects are in the pool"}
            {repository.evict && "; nodes that fill up give up copies of what it has"}
          </Text>
        </Group>
        {trouble.length > 0 && (
          <Alert color="red" icon={<IconAlertTriangle size={18} />} title="It does not work">
            <List size="sm">
              {trouble.map((each) => (
                <List.Item key={each}>{each}</List.Item>
              ))}
            </List>
          </Alert>
        )}
        <KeyValues
          items={[
            ["Waits to be written", amountText(behind, "object", "objects")],
            ["The oldest waits for", oldest === null ? undefined : duration(1000 * oldest)],
            ["Written since the agents began", amountText(repository.uploaded, "object", "objects")],
            ["Read from there", amountText(repository.fetched, "object", "objects")],
            [
              "Only there, given up by nodes",
              repository.evicted.objects === 0 ? undefined : amountText(repository.evicted, "copy", "copies"),
            ],
            [
              "Lost there",
              repository.missing_objects === 0
                ? undefined
                : amountText({ objects: repository.missing_objects, bytes: 0 }, "object", "objects"),
            ],
          ]}
        />
      </Stack>
    </Panel>
  );
}
