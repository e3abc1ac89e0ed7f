import { Button, Text } from "@mantine/core";
import { IconCamera } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { Suspense, useState } from "react";
import { searchOf } from "../../api/scope.ts";
import { type Snapshot, useSnapshots } from "../../api/snapshots.ts";
import { lazyPart } from "../../app/parts.ts";
import { useCommands } from "../../commands/registry.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { snapshotColumns } from "./columns.tsx";
import { DeleteSnapshots } from "./DeleteSnapshots.tsx";

const CreateSnapshot = lazyPart(() => import("./CreateSnapshot.tsx"));

const facets: readonly Facet[] = [
  { key: "state", title: "State", options: ["cutting", "saving", "ready", "failed"] },
  { key: "deployment", title: "Deployment" },
  { key: "taken", title: "Taken by", options: ["people", "protection"] },
];

const idOf = (snapshot: Snapshot) => snapshot.id;

/** All snapshots, newest first. */
export default function SnapshotList() {
  const snapshots = useSnapshots();
  const navigate = useNavigate();
  const [creating, setCreating] = useState(false);
  const create = () => setCreating(true);
  useCommands(() => [{ id: "create", title: "Take a snapshot", words: "new create", run: create }], []);
  const button = (
    <Button size="xs" leftSection={<IconCamera size={15} />} onClick={create}>
      Take a snapshot
    </Button>
  );
  return (
    <Page
      title="Snapshots"
      subtitle="Many disks, cut at one instant while their guests run. New deployments can start from them."
      actions={button}
    >
      <ThingsTable
        name="snapshots"
        rows={snapshots.data?.items}
        complete={snapshots.data?.complete ?? false}
        error={snapshots.error}
        onRetry={() => void snapshots.refetch()}
        rowId={idOf}
        columns={snapshotColumns}
        facets={facets}
        sort="-created"
        link={(snapshot) => ({
          to: "/snapshots/$snapshot",
          params: { snapshot: snapshot.id },
          search: searchOf(snapshot.project),
        })}
        bulk={(chosen, clear) => <DeleteSnapshots snapshots={chosen} onDone={clear} />}
        empty={
          <EmptyState
            title="There are no snapshots yet"
            icon={<IconCamera size={24} />}
            action={button}
            cli="muster snapshot create DEPLOYMENT"
          >
            <Text size="sm">
              A snapshot keeps the disks of a whole deployment as they were at one instant. The guests run on, and new
              deployments can start from it.
            </Text>
          </EmptyState>
        }
      />
      {creating && (
        <Suspense>
          {" "}
          <CreateSnapshot
            opened
            onClose={() => setCreating(false)}
            onCreated={({ target, project }) =>
              void navigate({
                to: "/snapshots/$snapshot",
                params: { snapshot: target.id },
                search: searchOf(project),
              })
            }
          />
        </Suspense>
      )}{" "}
    </Page>
  );
}
