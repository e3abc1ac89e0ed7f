import { Checkbox, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { type Deployment, type PowerVerb, usePower } from "../../../api/deployments.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { count } from "../../../ui/format.ts";
import { watchOperation } from "../../../ui/OperationWatch.tsx";

const words: Record<PowerVerb, { title: string; means: string }> = {
  start: {
    title: "Start",
    means:
      "All members that are stopped or failed start, on the nodes that have their disks. Those that run are left alone.",
  },
  stop: {
    title: "Stop",
    means: "Each guest is asked to turn itself off. One that does not answer in time loses power. Disks are kept.",
  },
  reboot: { title: "Reboot", means: "Each member is stopped and started on its node. Disks are kept." },
};

/** The states of members that each verb does something to. */
const states: Record<PowerVerb, string[]> = {
  start: ["stopped", "stopping", "failed"],
  stop: ["running", "starting", "pending", "paused"],
  reboot: ["running", "starting", "paused"],
};

/** Starts, stops or reboots all members. */
export function PowerDialog({
  deployment,
  verb,
  onClose,
}: {
  deployment: Deployment;
  verb: PowerVerb;
  onClose: () => void;
}) {
  const [force, setForce] = useState(false);
  const power = usePower();
  const { title, means } = words[verb];
  const members = states[verb].reduce((sum, state) => sum + (deployment.counts[state] ?? 0), 0);
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`${title} ${deployment.name}?`}
      confirm={members === 1 ? `${title} 1 member` : `${title} ${count(members)} members`}
      danger={verb !== "start"}
      onConfirm={async () => watchOperation(await power.mutateAsync({ deployment, verb, how: force ? { force } : {} }))}
    >
      <Stack gap="sm">
        <Text size="sm">{means}</Text>
        {verb !== "start" && (
          <Checkbox
            size="sm"
            label="Cut the power at once, without asking the guests"
            checked={force}
            onChange={(event) => setForce(event.currentTarget.checked)}
          />
        )}
      </Stack>
    </ConfirmDialog>
  );
}
