import { Group, Text } from "@mantine/core";
import type { Instance } from "../../api/instances.ts";
import { useOperationsOn } from "../../api/instances.ts";
import { ButtonLink } from "../../ui/links.tsx";
import { OperationProgress } from "../../ui/OperationProgress.tsx";
import { titleOf } from "../../ui/operation-title.ts";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import classes from "./InstanceDetail.module.css";
import { explain } from "./state-words.ts";

/** The state of an instance in words: what is the case, why, and what to do next. */
export function StateCallout({ instance }: { instance: Instance }) {
  const { tone, says, next, act } = explain(instance);
  const operations = useOperationsOn(instance).data?.items ?? [];
  return (
    <section className={classes.state} data-tone={tone} aria-label="State">
      <ToneIcon tone={tone} size={18} />
      <div>
        <Text size="sm" fw={600}>
          {says}
        </Text>
        {instance.detail !== null && instance.reason !== "node_silent" && (
          <Text size="sm" mt={2} style={{ overflowWrap: "anywhere" }}>
            {sentence(instance.detail)}{" "}
            {instance.reason !== null && (
              <Text span size="xs" c="dimmed">
                ({instance.reason})
              </Text>
            )}
          </Text>
        )}
        {next !== undefined && (
          <Text size="sm" c="dimmed" mt={2}>
            {next}
          </Text>
        )}
        {instance.last_reason !== null && instance.last_reason !== instance.reason && (
          <Text size="sm" c="dimmed" mt={2}>
            Before that: {lastReasons[instance.last_reason] ?? instance.last_reason},{" "}
            <TimeAgo time={instance.last_reason_at} />.
          </Text>
        )}
        {act === "node" && instance.node !== undefined && (
          <Group mt="xs">
            <ButtonLink size="compact-sm" variant="default" to="/nodes/$node" params={{ node: instance.node }}>
              Look at node {instance.node_name}
            </ButtonLink>
          </Group>
        )}
        {operations.map((operation) => (
          <Group key={operation.id} gap="sm" mt="xs" maw={420} className={classes.operation}>
            <Text size="sm" component="div">
              <ThingLink kind="operation" id={operation.id} name={titleOf(operation)} project={operation.project} />{" "}
              goes on
            </Text>
            <OperationProgress operation={operation} />
          </Group>
        ))}
      </div>
    </section>
  );
}

/** The API's sentences have neither a capital letter nor a full stop. */
function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

const lastReasons: Record<string, string> = {
  guest_rebooted: "the guest restarted itself",
  guest_ended: "the guest turned itself off",
  guest_crashed: "the guest crashed",
  host_restarted: "its host was restarted",
  power_cut: "its power was cut",
  agent_stopped: "the agent of its node was stopped",
  disk_lost: "its disk went away",
  disk_full: "it was held, because its node had no space left",
  disk_error: "it was held, because a call for its disk failed",
  clock_off: "it was held, because a clock was wrong",
  not_ready: "it was not ready in time",
  not_ready_in_time: "it was not ready in time and was stopped",
  not_started_in_time: "it was not started in time",
  start_failed: "a start was refused",
  no_capacity: "no node had room for it",
  node_silent: "its node was silent",
  node_lost: "its node was lost",
};
