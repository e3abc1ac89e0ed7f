import { Alert, Text } from "@mantine/core";
import { useNavigate, useParams } from "@tanstack/react-router";
import { type Network, useNetwork, usePatchNetwork } from "../../api/networks.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { TwoColumns } from "../../ui/TwoColumns.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { LabelsPanel } from "../instances/LabelsPanel.tsx";
import { Meter } from "../nodes/Meter.tsx";
import { CardsTable } from "./CardsTable.tsx";
import { ChangeNetwork } from "./ChangeNetwork.tsx";
import { AboutIt, useChangeOrDelete } from "./ChangeOrDelete.tsx";
import { DeleteNetworks } from "./DeleteNetworks.tsx";
import { modes, roomOf } from "./network-words.ts";
import { UsedBy } from "./UsedBy.tsx";

const crumbs = [
  <TextLink key="list" to="/networks">
    Networks
  </TextLink>,
];

/** One network: how it is laid out, and who has which address in it. */
export default function NetworkDetail() {
  const { network: id } = useParams({ from: "/framed/networks/$network" });
  const { data: network, error, refetch } = useNetwork(id);
  if (network === undefined) {
    return <WaitingPage title="Network" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <Shown key={network.id} network={network} />;
}

function Shown({ network }: { network: Network }) {
  const { asking, stopAsking, gone, actions } = useChangeOrDelete("network", network);
  const patch = usePatchNetwork();
  const navigate = useNavigate();
  return (
    <Page title={network.name} crumbs={crumbs} subtitle={modes[network.mode].means} actions={actions}>
      {gone && (
        <Alert color="gray" title="It is deleted">
          It is shown for 24 hours. Nothing can have a card in it any more.
        </Alert>
      )}
      <TwoColumns
        side={
          <>
            <UsedBy uses={(nic) => nic.network === network.id}>None. It can be deleted.</UsedBy>
            <LabelsPanel
              labels={network.labels}
              onSave={(labels) => patch.mutateAsync({ network, patch: { labels } })}
            />
            <AboutIt thing={network} />
          </>
        }
      >
        <Panel title="How it is laid out">
          <KeyValues
            items={[
              ["Mode", network.mode],
              ["Bridge of the hosts", network.bridge ?? undefined],
              ["IPv4 range", network.subnet_v4],
              ["Gateway", network.gateway],
              ["IPv6 range", network.subnet_v6],
              ["IPv6 gateway", network.gateway_v6],
              ["Name servers", network.dns.length === 0 ? "those of the nodes" : network.dns.join(", ")],
              ["Largest packet", `${count(network.mtu)} bytes`],
              [
                "Domain of its instances",
                network.domain === null ? null : <CopyId key="domain" value={network.domain} label="domain" />,
              ],
            ]}
          />
          <div style={{ marginTop: 12, maxWidth: 480 }}>
            <Meter label="Addresses in use" used={network.nics} total={roomOf(network)} format={count} />
          </div>
        </Panel>
        <CardsTable network={network} />
      </TwoColumns>
      <Text size="xs" c="dimmed">
        The same at the command line: <CopyId value={`muster network show ${network.name}`} label="command" />
      </Text>
      <ChangeNetwork opened={asking === "change"} onClose={stopAsking} network={network} />
      <DeleteNetworks
        opened={asking === "delete"}
        onClose={stopAsking}
        things={[network]}
        onDone={() => void navigate({ to: "/networks" })}
      />
    </Page>
  );
}
