import { TextInput } from "@mantine/core";
import { useState } from "react";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { nameProblem } from "./snapshot-words.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  name: string;
  onSave: (name: string) => Promise<unknown>;
}

/** Asks for a new name. */
export function RenameDialog(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title={`Rename ${props.name}`}>
      <Form {...props} />
    </Dialog>
  );
}

function Form({ onClose, name: before, onSave }: Props) {
  const [name, setName] = useState(before);
  const problem = nameProblem(name);
  const ready = problem === null && name !== "" && name !== before;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    await onSave(name);
    onClose();
  });
  return (
    <DialogForm
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Rename"
      busy={busy}
      ready={ready}
      error={error}
      failed="It keeps its name"
    >
      <TextInput
        label="New name"
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        error={problem}
        data-autofocus
        autoComplete="off"
      />
    </DialogForm>
  );
}
