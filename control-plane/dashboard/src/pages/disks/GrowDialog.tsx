import { Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { type Disk, useGrowDisk } from "../../api/disks.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { bytes } from "../../ui/format.ts";
import { sizeHint, sizeOf, sizeText } from "../../ui/size.ts";
import { toastDone } from "../../ui/toast.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { namedBy } from "./disk-words.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  disk: Disk;
}

/** Asks how large a disk is to be, and makes it so. */
export function GrowDialog({ opened, onClose, disk }: Props) {
  return (
    <Dialog opened={opened} onClose={onClose} title={`Grow disk ${disk.name}`}>
      <Form onClose={onClose} disk={disk} />
    </Dialog>
  );
}

function Form({ onClose, disk }: Omit<Props, "opened">) {
  const [typed, setTyped] = useState(() => sizeText(disk.size_bytes));
  const grow = useGrowDisk();
  const size = sizeOf(typed);
  const problem =
    size === null
      ? sizeHint
      : size < disk.size_bytes
        ? `It has ${bytes(disk.size_bytes)} now, and no disk can shrink.`
        : undefined;
  const ready = size !== null && size > disk.size_bytes;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    if (size === null) return;
    await grow.mutateAsync({ disk, size });
    toastDone(`Disk ${disk.name} grows to ${bytes(size)}`);
    onClose();
  });
  const { fields, beside } = refusalOf(error, (pointer) => (pointer === "/size_bytes" ? "size" : undefined));
  return (
    <DialogForm
      label="Grow a disk"
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Grow"
      busy={busy}
      ready={ready}
      error={beside}
      failed="It stays as large as it is"
      command={ready ? `muster disk grow ${namedBy(disk)} ${sizeText(size)}` : null}
    >
      <TextInput
        label="New size"
        value={typed}
        onChange={(event) => setTyped(event.currentTarget.value)}
        error={problem ?? fields.size}
        autoComplete="off"
        spellCheck={false}
        data-autofocus
      />
      <Text size="sm" c="dimmed">
        A guest that runs sees the new size at once. Its partitions and file systems are the guest's to grow. No disk
        can shrink again.
      </Text>
    </DialogForm>
  );
}
