import { useMemo } from "react";
import type { Instance } from "../../api/instances.ts";
import { type Network, type Nic, useInstancesIn } from "../../api/networks.ts";
import { searchOf } from "../../api/scope.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { cardText, usualCard } from "../deployments/wizard/cards.ts";
import { explain } from "../instances/state-words.ts";
import { portText } from "../security-groups/rules.ts";
import { GroupLinks } from "./GroupLinks.tsx";

interface Card {
  instance: Instance;
  nic: Nic;
}

const idOf = ({ instance }: Card) => instance.id;

const columns: readonly Column<Card>[] = [
  {
    key: "instance",
    title: "Instance",
    value: ({ instance }) => instance.name,
    cell: ({ instance }) => (
      <ThingLink kind="instance" id={instance.id} name={instance.name} project={instance.project} />
    ),
  },
  {
    key: "address",
    title: "Address",
    value: ({ nic }) => nic.address_v4,
    cell: ({ nic }) => (nic.address_v4 === null ? "–" : <CopyId value={nic.address_v4} label="address" />),
    width: 150,
  },
  {
    key: "state",
    title: "State",
    value: ({ instance }) => instance.state,
    cell: ({ instance }) => <StateBadge state={instance.state} tone={explain(instance).tone} />,
    width: 110,
    from: "sm",
  },
  {
    key: "v6",
    title: "IPv6 address",
    value: ({ nic }) => nic.address_v6,
    cell: ({ nic }) => (nic.address_v6 === null ? "–" : <CopyId value={nic.address_v6} label="address" />),
    width: 250,
    from: "xl",
  },
  {
    key: "mac",
    title: "MAC address",
    value: ({ nic }) => nic.mac,
    cell: ({ nic }) => <CopyId value={nic.mac} label="MAC address" />,
    width: 176,
    from: "lg",
  },
  {
    key: "groups",
    title: "Security groups",
    value: ({ nic }) => nic.security_group_names.join(" "),
    cell: ({ nic, instance }) => <GroupLinks nic={nic} project={instance.project} />,
    from: "sm",
  },
  {
    key: "published",
    title: "Published",
    value: ({ nic }) => nic.ports.map(portText).join(" "),
    cell: ({ nic }) => nic.ports.map((port) => `${port.node_port} → ${portText(port)}`).join(", ") || "–",
    width: 150,
    from: "xl",
  },
];

/** The instances with a card in a network, and their addresses. */
export function CardsTable({ network }: { network: Network }) {
  const instances = useInstancesIn(network);
  const items = instances.data?.items;
  const rows = useMemo(
    () =>
      items?.flatMap((instance) =>
        instance.nics.filter((nic) => nic.network === network.id).map((nic): Card => ({ instance, nic })),
      ),
    [items, network.id],
  );
  return (
    <Panel title="Cards in it">
      <ThingsTable
        name="cards"
        prefix="c-"
        rows={rows}
        complete={instances.data?.complete ?? false}
        error={instances.error}
        onRetry={() => void instances.refetch()}
        rowId={idOf}
        columns={columns}
        sort="instance"
        link={({ instance }) => ({
          to: "/instances/$instance",
          params: { instance: instance.id },
          search: searchOf(instance.project),
        })}
        empty={
          <EmptyState
            title="No instance has a card in it"
            action={
              <ButtonLink
                to="/deployments/new"
                search={
                  {
                    in: network.project === "default" ? "" : network.project,
                    cards: "chosen",
                    card: [cardText({ ...usualCard, network: network.name })],
                  } as never
                }
              >
                Deploy instances into it
              </ButtonLink>
            }
            cli={`muster deploy web --image IMAGE --count 4 --network ${network.name}`}
          >
            A deployment says which networks its members have cards in.
          </EmptyState>
        }
      />
    </Panel>
  );
}
