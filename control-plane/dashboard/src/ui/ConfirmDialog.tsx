import { TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { Dialog, DialogForm } from "./Dialog.tsx";
import { useSubmit } from "./use-submit.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  title: string;
  /** What will happen, and what comes back. */
  children?: ReactNode;
  /** The verb on the button, such as "Delete". */
  confirm: string;
  danger?: boolean;
  /** The text to type before the button works, for what cannot be undone. */
  typed?: string;
  /** Does it. The dialog stays open and shows the error if it fails, and closes if it succeeds. */
  onConfirm: () => Promise<unknown>;
}

/** Asks before something is done, and stays until it is done. */
export function ConfirmDialog(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title={props.title}>
      <Question {...props} />
    </Dialog>
  );
}

function Question({ onClose, children, confirm, danger = false, typed, onConfirm }: Props) {
  const [text, setText] = useState("");
  const ready = typed === undefined || text === typed;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    await onConfirm();
    onClose();
  });
  return (
    <DialogForm
      onSubmit={onSubmit}
      onClose={onClose}
      submit={confirm}
      danger={danger}
      busy={busy}
      ready={ready}
      focused={typed === undefined}
      error={error}
    >
      {children !== undefined && <div>{children}</div>}
      {typed !== undefined && (
        <TextInput
          label={`Type ${typed} to confirm`}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          data-autofocus
          autoComplete="off"
        />
      )}
    </DialogForm>
  );
}
