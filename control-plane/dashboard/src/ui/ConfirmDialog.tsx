import { Button, Group, Modal, Stack, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { ErrorBox } from "./ErrorBox.tsx";
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
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title={props.title}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Question {...props} />}
    </Modal>
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
    <form onSubmit={onSubmit}>
      <Stack gap="md">
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
        {error !== undefined && <ErrorBox error={error} />}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button
            type="submit"
            color={danger ? "red" : undefined}
            loading={busy}
            disabled={!ready}
            data-autofocus={typed === undefined || undefined}
          >
            {confirm}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
