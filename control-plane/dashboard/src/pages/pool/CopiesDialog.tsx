import { NumberInput, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { type Pool, useSetCopies } from "../../api/pools.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { count } from "../../ui/format.ts";
import { toastDone } from "../../ui/toast.tsx";

/** The most that the API takes. */
const most = 7;

/** Changes how many copies each object has. */
export function CopiesDialog({ pool, onClose }: { pool: Pool; onClose: () => void }) {
  const set = useSetCopies();
  const [wanted, setWanted] = useState<number | string>(pool.min_copies);
  const copies = typeof wanted === "number" && wanted >= 1 && wanted <= most ? wanted : undefined;
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title="Change how many copies there are"
      confirm="Change"
      danger={copies !== undefined && copies < pool.min_copies}
      onConfirm={async () => {
        // What is no such number goes to the API too: its answer says what is allowed.
        await set.mutateAsync(typeof wanted === "number" ? wanted : 0);
        toastDone(`Each object has at least ${copies === 1 ? "1 copy" : `${count(copies)} copies`} from now on`);
      }}
    >
      <Stack gap="sm">
        <NumberInput
          label="Copies of each object"
          description={`Now ${count(pool.min_copies)}, at most ${most}`}
          value={wanted}
          onChange={setWanted}
          min={1}
          max={most}
          allowDecimal={false}
          allowNegative={false}
          clampBehavior="none"
          data-autofocus
        />
        <Text size="sm" aria-live="polite">
          {meaning(copies, pool)}
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}

function meaning(copies: number | undefined, { min_copies: now, nodes }: Pool): string {
  if (copies === undefined) return `Write a number from 1 to ${most}.`;
  if (copies === now) return "Nothing changes.";
  if (copies < now) return "The nodes drop what is too much. Fewer nodes may then fail at the same time.";
  const few = nodes < copies ? " Some are only made when more nodes join." : "";
  return `The nodes make the further copies by themselves, which takes room and some time.${few}`;
}
