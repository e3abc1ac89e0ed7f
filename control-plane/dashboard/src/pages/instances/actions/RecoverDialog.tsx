import { Alert, Checkbox, Table, Text } from "@mantine/core";
import { useState } from "react";
import { ApiError } from "../../../api/client.ts";
import { actOn, type Instance, type Loss } from "../../../api/instances.ts";
import { Dialog, DialogForm } from "../../../ui/Dialog.tsx";
import { bytes, count } from "../../../ui/format.ts";
import { NameList } from "../../../ui/NameList.tsx";
import { watchOperation } from "../../../ui/OperationWatch.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import { TimeAgo } from "../../../ui/TimeAgo.tsx";
import { useSubmit } from "../../../ui/use-submit.ts";
import { byProject } from "./by-project.ts";

/**
 * Recovers instances of a dead node. The API is asked first without accepting a loss; what it says would be lost is
 * shown, and only then it can be accepted.
 */
export function RecoverDialog({
  instances,
  onClose,
  onDone,
}: {
  instances: readonly Instance[];
  onClose: () => void;
  onDone?: (() => void) | undefined;
}) {
  const [left, setLeft] = useState(() => byProject(instances));
  const [loss, setLoss] = useState<{ listed: Loss[]; disks: number }>();
  const [accepted, setAccepted] = useState(false);
  const one = instances.length === 1 ? instances[0] : undefined;
  const ready = loss === undefined || accepted;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    let rest = left;
    try {
      for (const group of left) {
        watchOperation(await actOn("recover", group, accepted ? { accept_loss: true } : {}));
        rest = rest.filter((each) => each !== group);
        // The next project may lose something else, which nobody has agreed to.
        setLoss(undefined);
        setAccepted(false);
        setLeft(rest);
        if (accepted && rest.length > 0) return;
      }
      onDone?.();
      onClose();
    } catch (caught) {
      if (!(caught instanceof ApiError && caught.code === "data_loss")) throw caught;
      setLoss(lossOf(caught));
    }
  });
  return (
    <Dialog
      opened
      onClose={onClose}
      size="lg"
      title={`Recover ${one?.name ?? `${count(instances.length)} instances`}?`}
    >
      <DialogForm
        onSubmit={onSubmit}
        onClose={onClose}
        submit={loss === undefined ? "Recover" : "Recover and lose this data"}
        danger={loss !== undefined}
        busy={busy}
        ready={ready}
        focused={loss === undefined}
        error={error}
      >
        <Text size="sm">
          {one === undefined ? "Each of them" : "It"} begins anew on another node, with the same id and name, from the
          last saved version of its disk. What was written on the lost node after that version is gone.
        </Text>
        {one === undefined && loss === undefined && <NameList things={left.flat()} />}
        {loss === undefined ? (
          <Text size="sm" c="dimmed">
            You are asked once more if something would be lost.
          </Text>
        ) : (
          <>
            <Alert color="red" title={`${loss.disks === 1 ? "One disk" : `${count(loss.disks)} disks`} may lose data`}>
              These bytes were not saved when the lost node last told. What was written after that is lost as well.
            </Alert>
            <Losses listed={loss.listed} disks={loss.disks} project={left[0]?.[0]?.project} />
            <Checkbox
              label="I accept that this data is lost"
              checked={accepted}
              onChange={(event) => setAccepted(event.currentTarget.checked)}
              data-autofocus
            />
          </>
        )}
      </DialogForm>
    </Dialog>
  );
}

function lossOf(error: ApiError): { listed: Loss[]; disks: number } {
  const listed = Array.isArray(error.problem.loss) ? (error.problem.loss as Loss[]) : [];
  return { listed, disks: typeof error.problem.disks === "number" ? error.problem.disks : listed.length };
}

function Losses({ listed, disks, project }: { listed: Loss[]; disks: number; project: string | undefined }) {
  return (
    <Table.ScrollContainer minWidth={400} mah={260}>
      <Table fz="sm">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Instance</Table.Th>
            <Table.Th>Disk</Table.Th>
            <Table.Th>Goes back to</Table.Th>
            <Table.Th ta="right">Lost, at least</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {listed.map((loss) => (
            <Table.Tr key={loss.disk}>
              <Table.Td>{loss.instance_name}</Table.Td>
              <Table.Td>{loss.disk_name}</Table.Td>
              <Table.Td>
                {loss.saved_at ? (
                  <>
                    <ThingLink
                      kind="version"
                      id={loss.version}
                      name="its version"
                      {...(project === undefined ? {} : { project })}
                    />{" "}
                    of <TimeAgo time={loss.saved_at} />
                  </>
                ) : (
                  "how it was deployed"
                )}
              </Table.Td>
              <Table.Td ta="right">{bytes(loss.unsaved_bytes)}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      {disks > listed.length && (
        <Text size="xs" c="dimmed" p="xs">
          and {count(disks - listed.length)} more disks
        </Text>
      )}
    </Table.ScrollContainer>
  );
}
