import { Text } from "@mantine/core";
import { IconDeviceFloppy } from "@tabler/icons-react";
import { type Disk, useDisks } from "../../api/disks.ts";
import { searchOf } from "../../api/scope.ts";
import { DeleteChosen } from "../../ui/DeleteThings.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { diskColumns } from "./columns.tsx";
import { DeleteDisks } from "./DiskActions.tsx";

const facets: readonly Facet[] = [
  { key: "state", title: "State", options: ["attached", "attaching", "growing", "detaching", "detached"] },
];
const idOf = (disk: Disk) => disk.id;

/** All disks: those of instances, and those that belong to none. */
export default function DiskList() {
  const disks = useDisks();
  return (
    <Page
      title="Disks"
      subtitle="The disks of instances, and those that were detached: they belong to none and keep what they hold."
    >
      <ThingsTable
        name="disks"
        rows={disks.data?.items}
        complete={disks.data?.complete ?? false}
        error={disks.error}
        onRetry={() => void disks.refetch()}
        rowId={idOf}
        columns={diskColumns}
        facets={facets}
        sort="instance"
        link={(disk) => ({ to: "/disks/$disk", params: { disk: disk.id }, search: searchOf(disk.project) })}
        bulk={(chosen, clear) => <DeleteChosen things={chosen} onDone={clear} dialog={DeleteDisks} />}
        empty={
          <EmptyState
            title="There are no disks yet"
            icon={<IconDeviceFloppy size={24} />}
            action={<ButtonLink to="/deployments/new">Deploy instances</ButtonLink>}
            cli="muster disk attach web.0 --name data --size 20GiB"
          >
            <Text size="sm">Each instance has a boot disk, and others that its deployment or somebody gave it.</Text>
          </EmptyState>
        }
      />
    </Page>
  );
}
