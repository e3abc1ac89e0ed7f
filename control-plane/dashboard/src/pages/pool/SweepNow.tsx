import { Button, Text } from "@mantine/core";
import { IconRecycle } from "@tabler/icons-react";
import { useState } from "react";
import { needsWord, type Sweep, useSweepPool } from "../../api/pools.ts";
import { useCommands } from "../../commands/registry.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { TextLink } from "../../ui/links.tsx";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { toastError } from "../../ui/toast.tsx";
import { awaitsWord } from "./advice.ts";

/** Sweeps now. After a restore of the database it asks for the operator's word first. */
export function SweepNow({ sweep }: { sweep: Sweep }) {
  const start = useSweepPool();
  const [asking, setAsking] = useState(false);
  const now = async () => {
    if (awaitsWord(sweep)) {
      setAsking(true);
      return;
    }
    try {
      watchOperation(await start.mutateAsync(false));
    } catch (error) {
      if (needsWord(error)) setAsking(true);
      else toastError(error, "The sweep was not begun");
    }
  };
  useCommands(
    () => [{ id: "sweep", title: "Sweep the pool now", words: "free space garbage", run: () => void now() }],
    [sweep],
  );
  return (
    <>
      <Button
        size="xs"
        leftSection={<IconRecycle size={15} />}
        loading={start.isPending && !asking}
        onClick={() => void now()}
      >
        Sweep now
      </Button>
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title="Allow the sweep after the restore?"
        confirm="Allow it and sweep"
        danger
        typed="sweep"
        onConfirm={async () => watchOperation(await start.mutateAsync(true))}
      >
        <Text size="sm" mb="xs">
          The database was restored from an older copy. What was stored after that copy was made is in none of its rows:
          only the nodes know that it is needed. Therefore nothing is swept until you say so.
        </Text>
        <Text size="sm" mb="xs">
          Decide before about the{" "}
          <TextLink to="/nodes" search={{ found: "1" } as never} inherit>
            instances that the database does not know
          </TextLink>
          . What neither the database nor a node that is there knows to be needed is deleted for good, such as versions
          that were published since and what only a node knew that has not come back.
        </Text>
        <Text size="sm">It is refused while a node did not tell yet what it holds.</Text>
      </ConfirmDialog>
    </>
  );
}
