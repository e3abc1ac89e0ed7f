import { Button, Group, Modal, Stack, Text, Textarea } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { keysOf, mostTyped } from "./type-text.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  onType: (text: string) => void;
}

/** Asks for a text, and types it. A screen has no clipboard, only keys. */
export function PasteDialog(props: Props) {
  return (
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title="Paste into the guest"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Form {...props} />}
    </Modal>
  );
}

function Form({ onClose, onType }: Props) {
  const [text, setText] = useState("");
  const { missing } = keysOf(text);
  const problem =
    text.length > mostTyped
      ? `At most ${mostTyped} letters at once; these are ${text.length}.`
      : missing.length > 0
        ? `The keyboard of the guest does not have: ${missing.join(" ")}`
        : undefined;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (text === "" || problem !== undefined) return;
    onType(text);
    onClose();
  };
  return (
    <form onSubmit={submit}>
      <Stack gap="md">
        <Textarea
          label="Text"
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          error={problem}
          rows={6}
          spellCheck={false}
          autoComplete="off"
          data-autofocus
        />
        <Text size="sm" c="dimmed">
          It is typed key by key on a US keyboard. A guest with another layout reads other signs.
        </Text>
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" disabled={text === "" || problem !== undefined}>
            Type it
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
