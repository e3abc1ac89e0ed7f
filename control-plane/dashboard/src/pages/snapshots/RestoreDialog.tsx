import { Alert, Checkbox, List, Radio, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { type Snapshot, useRestoreSnapshot } from "../../api/snapshots.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { count } from "../../ui/format.ts";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { quote } from "../deployments/wizard/cli.ts";

/** A disk of the snapshot that is not there any more. */
interface Missing {
  instance: string;
  disk: string;
  why: string;
}

interface Props {
  snapshot: Snapshot;
  onClose: () => void;
}

/**
 * Puts the disks of the members back to a snapshot. What they hold now is kept unless somebody gives it up. If something of
 * the snapshot is not there any more, that is shown, and only then the rest can be restored.
 */
export function RestoreDialog({ snapshot, onClose }: Props) {
  const restore = useRestoreSnapshot();
  const [discards, setDiscards] = useState(false);
  const [force, setForce] = useState(false);
  const [missing, setMissing] = useState<Missing[]>();
  const [allowed, setAllowed] = useState(false);
  const ready = missing === undefined || allowed;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    try {
      const request = {
        ...(discards ? { discard_current: true } : {}),
        ...(allowed ? { allow_missing: true } : {}),
        ...(force ? { force: true } : {}),
      };
      watchOperation(await restore.mutateAsync({ snapshot, request }));
      onClose();
    } catch (caught) {
      const found = missingOf(caught);
      if (found === undefined || allowed) throw caught;
      setMissing(found);
    }
  });
  const command = [
    `muster snapshot restore ${quote(snapshot.name)}`,
    ...(discards ? ["--discard-current"] : []),
    ...(allowed ? ["--allow-missing"] : []),
    ...(force ? ["--force"] : []),
  ].join(" ");
  return (
    <Dialog opened onClose={onClose} size="lg" title={`Put the disks back to ${snapshot.name}?`}>
      <DialogForm
        onSubmit={onSubmit}
        onClose={onClose}
        submit={discards ? "Restore and give up the present" : "Restore"}
        danger={discards}
        busy={busy}
        ready={ready}
        focused={missing === undefined}
        error={error}
        command={command}
      >
        <Text size="sm">
          Its guests are turned off, their disks get the content of {snapshot.name}, and those that ran start again.
          Names, addresses and ids stay. Instances and disks that were made later are not touched.
        </Text>
        <Radio.Group
          label="What the disks hold now"
          value={discards ? "discard" : "keep"}
          onChange={(value) => setDiscards(value === "discard")}
        >
          <Stack gap={8} mt={4}>
            <Radio
              value="keep"
              size="sm"
              label="Keep it as a snapshot"
              description="It is taken while the guests are off, and called before-restore-…"
            />
            <Radio
              value="discard"
              size="sm"
              label="Give it up"
              description="What was written since the last saved versions is gone for good."
            />
          </Stack>
        </Radio.Group>
        <Checkbox
          label="Cut the power of guests at once"
          description="Otherwise they are asked to turn themselves off."
          checked={force}
          onChange={(event) => setForce(event.currentTarget.checked)}
        />
        {missing !== undefined && <NotThere missing={missing} />}
        {missing !== undefined && (
          <Checkbox
            label="Restore the others"
            checked={allowed}
            onChange={(event) => setAllowed(event.currentTarget.checked)}
            data-autofocus
          />
        )}
      </DialogForm>
    </Dialog>
  );
}

/** What the refusal of a restore lists as missing; undefined if it was refused for another reason. */
function missingOf(error: unknown): Missing[] | undefined {
  if (!(error instanceof ApiError) || error.code !== "wrong_state") return undefined;
  return Array.isArray(error.problem.missing) ? (error.problem.missing as Missing[]) : undefined;
}

function NotThere({ missing }: { missing: Missing[] }) {
  return (
    <Alert
      color="yellow"
      title={
        missing.length === 1
          ? "One disk is not there any more"
          : `${count(missing.length)} disks are not there any more`
      }
    >
      <List size="sm">
        {missing.map(({ instance, disk, why }) => (
          <List.Item key={`${instance}/${disk}`}>
            {instance}/{disk}: {why}
          </List.Item>
        ))}
      </List>
      {missing.length === 20 && <Text size="xs">There may be more: the first 20 are listed.</Text>}
    </Alert>
  );
}
