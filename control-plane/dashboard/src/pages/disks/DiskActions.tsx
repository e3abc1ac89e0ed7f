import { Button, Group, Text } from "@mantine/core";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { type Disk, useAttachDisk, useDeleteDisk, useDetachDisk } from "../../api/disks.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { type DeleteProps, DeleteThings } from "../../ui/DeleteThings.tsx";
import { toastDone, toastError } from "../../ui/toast.tsx";
import { AttachToSome } from "./AttachDialog.tsx";
import { type DiskVerb, verbsFor } from "./disk-words.ts";
import { GrowDialog } from "./GrowDialog.tsx";

const words: Record<DiskVerb, string> = {
  grow: "Grow",
  attach: "Attach",
  detach: "Detach",
  keep: "Keep it attached",
  delete: "Delete",
};

/** What can be done with one disk, as buttons. Their names for screen readers say of which disk. */
export function DiskActions({ disk, size = "xs" }: { disk: Disk; size?: string }) {
  const [asking, setAsking] = useState<DiskVerb>();
  const navigate = useNavigate();
  const detach = useDetachDisk();
  const attach = useAttachDisk();
  const stop = () => setAsking(undefined);
  const keep = async () => {
    if (disk.instance === null) return;
    try {
      await attach.mutateAsync({ instance: disk.instance, project: disk.project, request: { disk: disk.id } });
      toastDone(`Disk ${disk.name} stays with ${disk.instance_name}`);
    } catch (error) {
      toastError(error, "The disk is still being detached");
    }
  };
  return (
    <>
      <Group gap="xs">
        {verbsFor(disk).map((verb) => (
          <Button
            key={verb}
            size={size}
            variant="default"
            loading={verb === "keep" && attach.isPending}
            aria-label={`${words[verb]}: disk ${disk.name}`}
            onClick={() => (verb === "keep" ? void keep() : setAsking(verb))}
          >
            {words[verb]}
          </Button>
        ))}
      </Group>
      <GrowDialog opened={asking === "grow"} onClose={stop} disk={disk} />
      <AttachToSome opened={asking === "attach"} onClose={stop} disk={disk} />
      <ConfirmDialog
        opened={asking === "detach"}
        onClose={stop}
        title={`Detach disk ${disk.name} from ${disk.instance_name}?`}
        confirm="Detach"
        onConfirm={() => detach.mutateAsync(disk)}
      >
        <Text size="sm">
          The guest lets it go, then a snapshot saves all that it holds, then it belongs to no instance and can be
          attached to another. Unmount it in the guest first: a guest may refuse to let go what it uses. Until it is
          detached you can keep it.
        </Text>
      </ConfirmDialog>
      <DeleteDisks
        opened={asking === "delete"}
        onClose={stop}
        things={[disk]}
        onDone={() => void navigate({ to: "/disks" })}
      />
    </>
  );
}

/** Asks before disks are deleted. */
export function DeleteDisks(props: DeleteProps<Disk>) {
  const { mutateAsync } = useDeleteDisk();
  const attached = props.things.filter(({ state }) => state !== "detached");
  return (
    <DeleteThings {...props} kind="disk" remove={mutateAsync}>
      {attached.length === 0
        ? "What it holds is gone for good, unless a snapshot has it too."
        : `This will be refused for those that belong to an instance, such as ${attached[0]?.name} of ${attached[0]?.instance_name}: detach them first.`}
    </DeleteThings>
  );
}
