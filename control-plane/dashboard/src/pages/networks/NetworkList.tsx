import { Button, Text } from "@mantine/core";
import { IconNetwork, IconPlus } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { type Network, useNetworks } from "../../api/networks.ts";
import { searchOf } from "../../api/scope.ts";
import { useCommands } from "../../commands/registry.ts";
import { DeleteChosen } from "../../ui/DeleteThings.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { networkColumns } from "./columns.tsx";
import { DeleteNetworks } from "./DeleteNetworks.tsx";
import { NewNetwork } from "./NewNetwork.tsx";

const facets: readonly Facet[] = [{ key: "mode", title: "Mode", options: ["nat", "isolated", "bridge"] }];
const idOf = (network: Network) => network.id;

/** All networks, and how full they are. */
export default function NetworkList() {
  const networks = useNetworks();
  const navigate = useNavigate();
  const [making, setMaking] = useState(false);
  useCommands(
    () => [{ id: "new-network", title: "Make a network", words: "new create", run: () => setMaking(true) }],
    [],
  );
  const button = (
    <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setMaking(true)}>
      New network
    </Button>
  );
  const linkTo = ({ id, project }: Network) => ({
    to: "/networks/$network" as const,
    params: { network: id },
    search: searchOf(project),
  });
  return (
    <Page
      title="Networks"
      subtitle="Instances of one network reach each other by name, on whichever node they run."
      actions={button}
    >
      <ThingsTable
        name="networks"
        rows={networks.data?.items}
        complete={networks.data?.complete ?? false}
        error={networks.error}
        onRetry={() => void networks.refetch()}
        rowId={idOf}
        columns={networkColumns}
        facets={facets}
        sort="name"
        link={linkTo}
        bulk={(chosen, clear) => <DeleteChosen things={chosen} onDone={clear} dialog={DeleteNetworks} />}
        empty={
          <EmptyState
            title="There are no networks yet"
            icon={<IconNetwork size={24} />}
            action={button}
            cli="muster network create back --subnet 10.20.0.0/24"
          >
            <Text size="sm">
              The first deployment with a network card makes the network default. Make others to keep instances apart.
            </Text>
          </EmptyState>
        }
      />
      <NewNetwork opened={making} onClose={() => setMaking(false)} onMade={(made) => void navigate(linkTo(made))} />
    </Page>
  );
}
