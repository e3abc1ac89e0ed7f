import { ActionIcon, Button, Group, Modal, Stack, Text, TextInput, UnstyledButton } from "@mantine/core";
import { IconPencil, IconPlus, IconX } from "@tabler/icons-react";
import { useState } from "react";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import classes from "./LabelsPanel.module.css";
import { type LabelRow, type Labels, patchOf, rowProblem, rowsOf } from "./label-edits.ts";

interface Props {
  labels: Labels;
  /** Saves the changes, a merge patch. */
  onSave: (patch: Record<string, string | null>) => Promise<unknown>;
}

/** The labels of a thing, and the form that changes them. */
export function LabelsPanel({ labels, onSave }: Props) {
  const [editing, setEditing] = useState(false);
  const rows = rowsOf(labels);
  return (
    <Panel
      title="Labels"
      aside={
        <Button
          size="compact-xs"
          variant="subtle"
          leftSection={<IconPencil size={13} />}
          onClick={() => setEditing(true)}
        >
          Edit
        </Button>
      }
    >
      {rows.length === 0 ? (
        <Text size="sm" c="dimmed">
          None. Labels group things: lists can be filtered by them, and actions can be given to all that have one.
        </Text>
      ) : (
        <Group gap={6}>
          {rows.map(({ key, value }) => (
            <span key={key} className={classes.label}>
              <span className={classes.key}>{key}</span> {value}
            </span>
          ))}
        </Group>
      )}
      <Modal
        opened={editing}
        onClose={() => setEditing(false)}
        title="Edit labels"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        {editing && <Form labels={labels} onSave={onSave} onClose={() => setEditing(false)} />}
      </Modal>
    </Panel>
  );
}

function Form({ labels, onSave, onClose }: Props & { onClose: () => void }) {
  const [rows, setRows] = useState<LabelRow[]>(() => {
    const known = rowsOf(labels);
    return known.length > 0 ? known : [{ id: 0, key: "", value: "" }];
  });
  const patch = patchOf(labels, rows);
  const sound = rows.every((row) => rowProblem(row, rows) === null);
  const change = (id: number, part: Partial<LabelRow>) =>
    setRows(rows.map((row) => (row.id === id ? { ...row, ...part } : row)));
  const { busy, error, onSubmit } = useSubmit(sound, async () => {
    if (Object.keys(patch).length > 0) await onSave(patch);
    onClose();
  });
  return (
    <form onSubmit={onSubmit}>
      <Stack gap="sm">
        {rows.map((row) => (
          <Group key={row.id} gap={6} wrap="nowrap" align="flex-start">
            <TextInput
              size="xs"
              flex={1}
              placeholder="key"
              aria-label="Key"
              value={row.key}
              onChange={(event) => change(row.id, { key: event.currentTarget.value })}
              error={rowProblem(row, rows)}
              autoComplete="off"
            />
            <TextInput
              size="xs"
              flex={1}
              placeholder="value"
              aria-label={`Value of ${row.key || "the new label"}`}
              value={row.value}
              onChange={(event) => change(row.id, { value: event.currentTarget.value })}
              autoComplete="off"
            />
            <ActionIcon
              variant="subtle"
              color="gray"
              size={30}
              aria-label={`Remove ${row.key || "this row"}`}
              onClick={() => setRows(rows.filter(({ id }) => id !== row.id))}
            >
              <IconX size={15} />
            </ActionIcon>
          </Group>
        ))}
        <UnstyledButton
          fz="sm"
          c="var(--mantine-primary-color-light-color)"
          onClick={() => setRows([...rows, { id: 1 + Math.max(-1, ...rows.map(({ id }) => id)), key: "", value: "" }])}
          disabled={rows.length >= 50}
        >
          <Group gap={4}>
            <IconPlus size={14} /> Add a label
          </Group>
        </UnstyledButton>
        {error !== undefined && <ErrorBox error={error} title="The labels are not saved" />}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={busy} disabled={!sound}>
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
