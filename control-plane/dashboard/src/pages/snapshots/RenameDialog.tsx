import { Button, Group, Modal, Stack, TextInput } from "@mantine/core";
import { useState } from "react";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
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
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title={`Rename ${props.name}`}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Form {...props} />}
    </Modal>
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
    <form onSubmit={onSubmit}>
      <Stack gap="md">
        <TextInput
          label="New name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={problem}
          data-autofocus
          autoComplete="off"
        />
        {error !== undefined && <ErrorBox error={error} title="It keeps its name" />}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={busy} disabled={!ready}>
            Rename
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
