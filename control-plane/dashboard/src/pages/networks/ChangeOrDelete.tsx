/** What the pages of a network and of a security group share: both can be changed and deleted. */
import { Button } from "@mantine/core";
import { IconPencil, IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import { useCommands } from "../../commands/registry.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";

interface Thing {
  id: string;
  name: string;
  project: string;
  state: string;
  created_at: string;
  updated_at: string;
}

/** The buttons and the commands of the palette; none for a thing that is gone. Tells which of the two is asked for. */
export function useChangeOrDelete(kind: string, { name, state }: Thing) {
  const [asking, setAsking] = useState<"change" | "delete">();
  const gone = state === "deleted";
  useCommands(
    () =>
      gone
        ? []
        : [
            { id: "change", title: `Change ${kind} ${name}`, run: () => setAsking("change") },
            { id: "delete", title: `Delete ${kind} ${name}`, run: () => setAsking("delete") },
          ],
    [kind, name, gone],
  );
  const actions = gone ? undefined : (
    <>
      <Button size="xs" variant="default" leftSection={<IconPencil size={15} />} onClick={() => setAsking("change")}>
        Change
      </Button>
      <Button
        size="xs"
        variant="default"
        leftSection={<IconTrash size={15} color="var(--state-bad)" />}
        onClick={() => setAsking("delete")}
      >
        Delete
      </Button>
    </>
  );
  return { asking, stopAsking: () => setAsking(undefined), gone, actions };
}

export function AboutIt({ thing }: { thing: Thing }) {
  return (
    <Panel title="About it">
      <KeyValues
        items={[
          ["Project", thing.project],
          ["Created", <TimeAgo key="created" time={thing.created_at} />],
          ["Changed", <TimeAgo key="changed" time={thing.updated_at} />],
          ["Id", <CopyId key="id" value={thing.id} />],
        ]}
      />
    </Panel>
  );
}
