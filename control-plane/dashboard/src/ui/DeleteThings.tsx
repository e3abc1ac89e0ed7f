import { Button, Stack, Text } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { ConfirmDialog } from "./ConfirmDialog.tsx";
import { count } from "./format.ts";
import { NameList } from "./NameList.tsx";
import { toastDone } from "./toast.tsx";

export interface DeleteProps<T> {
  opened: boolean;
  things: readonly T[];
  onClose: () => void;
  /** All of them are deleted. */
  onDone: () => void;
}

interface Props<T> extends DeleteProps<T> {
  /** What they are, for people: `network`. */
  kind: string;
  remove: (thing: T) => Promise<unknown>;
  /** What comes of it. */
  children: ReactNode;
}

/** Asks before things are deleted that the API deletes one at a time, and at once. */
export function DeleteThings<T extends { id: string; name: string }>(props: Props<T>) {
  const { opened, things, onClose, onDone, kind, remove, children } = props;
  const [first] = things;
  const what = things.length === 1 ? `${kind} ${first?.name}` : `${count(things.length)} ${kind}s`;
  return (
    <ConfirmDialog
      opened={opened}
      onClose={onClose}
      title={`Delete ${what}?`}
      confirm="Delete"
      danger
      onConfirm={async () => {
        for (const thing of things) {
          await remove(thing);
          toastDone(`${kind.charAt(0).toUpperCase()}${kind.slice(1)} ${thing.name} is deleted`);
        }
        onDone();
      }}
    >
      <Stack gap="sm">
        {things.length > 1 && <NameList things={things} />}
        <Text size="sm" component="div">
          {children}
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}

/** The button that deletes the chosen rows of a table, after a dialog has asked. */
export function DeleteChosen<T>({
  things,
  onDone,
  dialog: Asking,
}: Pick<DeleteProps<T>, "things" | "onDone"> & { dialog: (props: DeleteProps<T>) => ReactNode }) {
  const [asking, setAsking] = useState(false);
  return (
    <>
      <Button size="compact-sm" color="red" onClick={() => setAsking(true)}>
        Delete
      </Button>
      <Asking opened={asking} things={things} onClose={() => setAsking(false)} onDone={onDone} />
    </>
  );
}
