import { Button, Code, Group, Modal, Stack } from "@mantine/core";
import type { FormEvent, ReactNode } from "react";
import { CopyId } from "./CopyId.tsx";
import { ErrorBox } from "./ErrorBox.tsx";

interface DialogProps {
  opened: boolean;
  onClose: () => void;
  title: string;
  size?: string;
  children: ReactNode;
}

/** A window above the page. What is in it begins anew each time it is opened. */
export function Dialog({ opened, children, ...rest }: DialogProps) {
  return (
    <Modal opened={opened} {...rest} closeButtonProps={{ "aria-label": "Close" }}>
      {opened && children}
    </Modal>
  );
}

interface DialogFormProps {
  /** What the form is, for screen readers. */
  label?: string;
  onSubmit: (event: FormEvent) => void;
  onClose: () => void;
  /** The verb on the button that sends it. */
  submit: string;
  danger?: boolean;
  busy?: boolean;
  /** Whether it can be sent. */
  ready?: boolean;
  /** The button has the focus at first. */
  focused?: boolean;
  /** Why it was refused, as far as its fields do not say that, and what follows from that. */
  error?: unknown;
  failed?: string;
  /** The command line that does the same. */
  command?: string | null;
  children?: ReactNode;
}

/** A form in a dialog: its fields, what went wrong, the way back and the way on. */
export function DialogForm({
  label,
  onSubmit,
  onClose,
  submit,
  danger = false,
  busy = false,
  ready = true,
  focused = false,
  error,
  failed,
  command = null,
  children,
}: DialogFormProps) {
  return (
    <form onSubmit={onSubmit} noValidate aria-label={label}>
      <Stack gap="md">
        {children}
        {error !== undefined && <ErrorBox error={error} {...(failed === undefined ? {} : { title: failed })} />}
        {command !== null && (
          <Code px="sm" py={4}>
            <CopyId value={command} label="command" />
          </Code>
        )}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button
            type="submit"
            color={danger ? "red" : undefined}
            loading={busy}
            disabled={!ready}
            data-autofocus={focused || undefined}
          >
            {submit}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
