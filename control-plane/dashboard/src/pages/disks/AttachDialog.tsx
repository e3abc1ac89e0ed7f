import { Autocomplete, SegmentedControl, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { type AttachDisk, type Disk, useAttachDisk, useDetachedDisks } from "../../api/disks.ts";
import { useImages } from "../../api/images.ts";
import { type Instance, useInstances } from "../../api/instances.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { bytes } from "../../ui/format.ts";
import { SearchSelect } from "../../ui/SearchSelect.tsx";
import { sizeHint, sizeOf } from "../../ui/size.ts";
import { toastDone } from "../../ui/toast.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { anotherDisk, diskSourceOf } from "../deployments/wizard/disks.ts";
import { attachCommand, takesDisks } from "./disk-words.ts";

interface DialogProps {
  opened: boolean;
  onClose: () => void;
}

const forTheGuest =
  "A guest that runs gets it at once. It mounts the disk itself, and makes a file system on one that is blank.";

/** Gives an instance another disk: a new one, or one that is detached. */
export function AttachToInstance({ opened, onClose, instance }: DialogProps & { instance: Instance }) {
  return (
    <Dialog opened={opened} onClose={onClose} title={`Attach a disk to ${instance.name}`}>
      <ToInstance onClose={onClose} instance={instance} />
    </Dialog>
  );
}

/** Gives a detached disk to an instance. */
export function AttachToSome({ opened, onClose, disk }: DialogProps & { disk: Disk }) {
  return (
    <Dialog opened={opened} onClose={onClose} title={`Attach disk ${disk.name}`}>
      <ToSome onClose={onClose} disk={disk} />
    </Dialog>
  );
}

type Field = "name" | "size" | "source" | "disk";
const fieldOfPart: Record<string, Field> = { name: "name", size_bytes: "size", source: "source", disk: "disk" };
const fieldOf = (pointer: string) => fieldOfPart[pointer.split("/")[1] ?? ""];

/** Attaches what is asked for to an instance, and says what was refused at its field. */
function useAttach(
  ready: boolean,
  onClose: () => void,
  instance: Pick<Instance, "id" | "name" | "project"> | undefined,
  request: AttachDisk,
) {
  const attach = useAttachDisk();
  const submit = useSubmit(ready, async () => {
    if (instance === undefined) return;
    const disk = await attach.mutateAsync({ instance: instance.id, project: instance.project, request });
    toastDone(`Disk ${disk.name} is given to ${instance.name}`);
    onClose();
  });
  const { fields, beside } = refusalOf(submit.error, fieldOf);
  const form = {
    onSubmit: submit.onSubmit,
    onClose,
    busy: submit.busy,
    ready,
    error: beside,
    submit: "Attach",
    failed: "It is not attached",
    command: ready && instance !== undefined ? attachCommand(instance.name, request) : null,
  };
  return { form, fields };
}

function ToInstance({ onClose, instance }: { onClose: () => void; instance: Instance }) {
  const { project } = instance;
  const [kind, setKind] = useState("new");
  const [disk, setDisk] = useState<string | null>(null);
  const [made, setMade] = useState(() =>
    anotherDisk(instance.disks.map(({ name }) => ({ name, size: "", source: "" }))),
  );
  const [name, setName] = useState("");
  const detached = useDetachedDisks(project).data?.items;
  const images = (useImages().data?.items ?? []).filter(
    (image) => image.project === project && image.version_count > 0,
  );
  const size = sizeOf(made.size);
  const source = diskSourceOf(made.source);
  const fresh = kind === "new";
  const request: AttachDisk = fresh
    ? { name: made.name.trim(), size_bytes: size ?? 0, ...(source === undefined ? {} : { source }) }
    : { disk: disk ?? "", ...(name.trim() === "" ? {} : { name: name.trim() }) };
  const ready = fresh ? made.name.trim() !== "" && size !== null : disk !== null;
  const { form, fields } = useAttach(ready, onClose, instance, request);
  const change = (part: Partial<typeof made>) => setMade((before) => ({ ...before, ...part }));
  return (
    <DialogForm label="Attach a disk" {...form}>
      <SegmentedControl
        aria-label="Which disk"
        value={kind}
        onChange={setKind}
        data={[
          { value: "new", label: "A new one" },
          { value: "detached", label: "A detached one" },
        ]}
      />
      {fresh ? (
        <>
          <TextInput
            label="Name"
            value={made.name}
            onChange={(event) => change({ name: event.currentTarget.value })}
            error={fields.name}
            autoComplete="off"
            spellCheck={false}
          />
          <TextInput
            label="Size"
            value={made.size}
            onChange={(event) => change({ size: event.currentTarget.value })}
            error={size === null ? sizeHint : fields.size}
            autoComplete="off"
            spellCheck={false}
          />
          <Autocomplete
            label="Starts as"
            placeholder="blank"
            data={[...new Set(images.map((image) => image.name))]}
            value={made.source}
            onChange={(text) => change({ source: text })}
            error={fields.source}
          />
        </>
      ) : (
        <>
          <SearchSelect
            label="Disk"
            placeholder={detached?.length === 0 ? "No disk of this project is detached" : "Choose one"}
            data={(detached ?? []).map((each) => ({
              value: each.id,
              label: `${each.name} (${bytes(each.size_bytes)}${each.detached_from ? `, was of ${each.detached_from}` : ""})`,
            }))}
            value={disk}
            onChange={setDisk}
            error={fields.disk}
            nothingFoundMessage="No detached disk has this name"
          />
          <NewName value={name} onChange={setName} error={fields.name} />
        </>
      )}
      <Text size="sm" c="dimmed">
        {forTheGuest}
      </Text>
    </DialogForm>
  );
}

function ToSome({ onClose, disk }: { onClose: () => void; disk: Disk }) {
  const [chosen, setChosen] = useState<string | null>(null);
  const [name, setName] = useState("");
  const able = useInstances().data?.items.filter((each) => each.project === disk.project && takesDisks(each));
  const instance = able?.find(({ id }) => id === chosen);
  const request: AttachDisk = { disk: disk.id, ...(name.trim() === "" ? {} : { name: name.trim() }) };
  const { form, fields } = useAttach(instance !== undefined, onClose, instance, request);
  return (
    <DialogForm label="Attach a disk" {...form}>
      <SearchSelect
        label="Instance"
        placeholder={able?.length === 0 ? "No instance of its project takes a disk now" : "Choose one"}
        data={(able ?? []).map((each) => ({ value: each.id, label: `${each.name} (${each.state})` }))}
        value={chosen}
        onChange={setChosen}
        limit={50}
        nothingFoundMessage="No instance has this name"
        data-autofocus
      />
      <NewName value={name} onChange={setName} error={fields.name} placeholder={disk.name} />
      <Text size="sm" c="dimmed">
        {forTheGuest}
      </Text>
    </DialogForm>
  );
}

function NewName({
  value,
  onChange,
  error,
  placeholder = "as it is",
}: {
  value: string;
  onChange: (name: string) => void;
  error: string | undefined;
  placeholder?: string;
}) {
  return (
    <TextInput
      label="Name within the instance"
      placeholder={placeholder}
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
      error={error}
      autoComplete="off"
      spellCheck={false}
    />
  );
}
