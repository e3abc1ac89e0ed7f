import { NumberInput, Radio, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { actOn, type Instance, useFreedBytes, type Verb } from "../../../api/instances.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../../ui/format.ts";
import { NameList } from "../../../ui/NameList.tsx";
import { watchOperation } from "../../../ui/OperationWatch.tsx";
import { unsavedBytes } from "../columns.tsx";
import { byProject } from "./by-project.ts";

type Asked = Exclude<Verb, "recover">;

const words: Record<Asked, { title: string; means: string }> = {
  start: { title: "Start", means: "It boots from its disk as it was left." },
  stop: { title: "Stop", means: "Its disks are kept, and so is its place on the node." },
  reboot: { title: "Reboot", means: "It stops and starts again, with the same disks on the same node." },
  delete: {
    title: "Delete",
    means: "The instance and its disks are deleted. Snapshots and versions that were made of it stay.",
  },
};

/** Asks before instances are started, stopped, rebooted or deleted, and does it by one call for each project. */
export function ActDialog({
  verb,
  instances,
  leftAlone,
  onClose,
  onDone,
}: {
  verb: Asked;
  instances: readonly Instance[];
  /** How many were chosen beside these, which the verb does not fit. */
  leftAlone: number;
  onClose: () => void;
  onDone?: (() => void) | undefined;
}) {
  const [force, setForce] = useState(false);
  const [timeout, setTimeoutS] = useState<number | string>("");
  const one = instances.length === 1 ? instances[0] : undefined;
  const many = one === undefined;
  const asksHow = verb === "stop" || verb === "reboot";
  const unsaved = instances.reduce((sum, instance) => sum + unsavedBytes(instance), 0);
  const { title, means } = words[verb];
  const act = async () => {
    const how = !asksHow ? {} : force ? { force } : typeof timeout === "number" ? { timeout_s: timeout } : {};
    for (const group of byProject(instances)) watchOperation(await actOn(verb, group, how));
    onDone?.();
  };
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`${title} ${one?.name ?? `${count(instances.length)} instances`}?`}
      confirm={title}
      danger={verb === "delete" || (asksHow && force)}
      typed={verb === "delete" && (many || unsaved > 0) ? "delete" : undefined}
      onConfirm={act}
    >
      <Stack gap="sm">
        {many && <NameList things={instances} />}
        <Text size="sm">
          {many ? means.replace(/^It (\w+)s\b/, "Each $1s").replace("The instance and its", "They and their") : means}
        </Text>
        {leftAlone > 0 && (
          <Text size="sm" c="dimmed">
            {count(leftAlone)} of those chosen {leftAlone === 1 ? "is" : "are"} left alone, because {wontFit[verb]}.
          </Text>
        )}
        {asksHow && (
          <Radio.Group label="How" value={force ? "force" : "ask"} onChange={(value) => setForce(value === "force")}>
            <Stack gap={8} mt={4}>
              <Radio
                value="ask"
                size="sm"
                label="Ask the guest to turn itself off"
                description="Its power is cut only if it takes too long."
              />
              <Radio
                value="force"
                size="sm"
                label="Cut the power at once"
                description="As if the plug were pulled: what the guest has not flushed is lost."
              />
            </Stack>
          </Radio.Group>
        )}
        {asksHow && !force && (
          <NumberInput
            label="Time that the guest may take"
            description="Left empty, the controller's own setting counts."
            suffix=" s"
            placeholder="30 s"
            min={1}
            max={3600}
            allowDecimal={false}
            value={timeout}
            onChange={setTimeoutS}
          />
        )}
        {verb === "delete" && unsaved > 0 && (
          <Text size="sm" fw={500} c="red">
            {bytes(unsaved)} were written since the last saved versions, and would be gone for good. Take a snapshot
            first to keep them.
          </Text>
        )}
        {verb === "delete" && one !== undefined && <Freed instance={one} />}
      </Stack>
    </ConfirmDialog>
  );
}

const wontFit: Record<Asked, string> = {
  start: "they run already or cannot be started",
  stop: "they do not run",
  reboot: "they do not run",
  delete: "they are being deleted already",
};

/** What comes back. */
function Freed({ instance }: { instance: Instance }) {
  const freed = useFreedBytes(instance, true);
  const said = freed.isPending
    ? "…"
    : typeof freed.data === "number"
      ? `${bytes(freed.data)} of the pool, which nothing else uses.`
      : "what nothing else uses. How much that is could not be found out quickly.";
  return (
    <Text size="sm">
      This frees {said} Its deployment {instance.deployment_name} then has one member less.
    </Text>
  );
}
