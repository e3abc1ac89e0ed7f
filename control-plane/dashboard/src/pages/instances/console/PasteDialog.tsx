import { Text, Textarea } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { Dialog, DialogForm } from "../../../ui/Dialog.tsx";
import { keysOf, mostTyped } from "./type-text.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  onType: (text: string) => void;
}

/** Asks for a text, and types it. A screen has no clipboard, only keys. */
export function PasteDialog(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title="Paste into the guest">
      <Form {...props} />
    </Dialog>
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
    <DialogForm onSubmit={submit} onClose={onClose} submit="Type it" ready={text !== "" && problem === undefined}>
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
    </DialogForm>
  );
}
