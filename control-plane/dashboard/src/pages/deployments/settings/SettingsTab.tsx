import { Button, Code, Group, Stack, Text } from "@mantine/core";
import { Fragment, useState } from "react";
import { type Deployment, usePatchLabels, useUserData } from "../../../api/deployments.ts";
import { ByteSize } from "../../../ui/ByteSize.tsx";
import { CopyId } from "../../../ui/CopyId.tsx";
import { ErrorBox } from "../../../ui/ErrorBox.tsx";
import { count, duration } from "../../../ui/format.ts";
import { KeyValues } from "../../../ui/KeyValues.tsx";
import { ButtonLink } from "../../../ui/links.tsx";
import { Panel } from "../../../ui/Panel.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import { TimeAgo } from "../../../ui/TimeAgo.tsx";
import { firmwareText } from "../../images/words.ts";
import { LabelsPanel } from "../../instances/LabelsPanel.tsx";
import { GroupLinks } from "../../networks/GroupLinks.tsx";
import { portText } from "../../security-groups/rules.ts";
import { ProtectionPanel } from "../protection/ProtectionPanel.tsx";
import { SourceLink } from "../source.tsx";
import { searchFrom } from "../wizard/again.ts";
import { diskSourceText } from "../wizard/disks.ts";

/** How a deployment was set up. Labels and protection can be changed; the rest is fixed when it is made. */
export function SettingsTab({ deployment }: { deployment: Deployment }) {
  const { placement, ready_when: ready } = deployment;
  const patch = usePatchLabels();
  return (
    <Stack gap="md">
      <Panel
        title="Each member"
        aside={
          <ButtonLink
            to="/deployments/new"
            search={searchFrom(deployment) as never}
            size="compact-xs"
            variant="default"
          >
            Deploy another like this
          </ButtonLink>
        }
      >
        <KeyValues
          items={[
            ["Starts from", <SourceLink key="source" deployment={deployment} />],
            ["Runtime", deployment.runtime === "none" ? "none (disk files only)" : deployment.runtime],
            ["CPUs", deployment.runtime === "none" ? undefined : deployment.cpus],
            [
              "Memory",
              deployment.runtime === "none" ? undefined : <ByteSize key="memory" value={deployment.memory_bytes} />,
            ],
            ["Boot disk", <ByteSize key="disk" value={deployment.disk_bytes} />],
            ["Firmware", deployment.runtime === "none" ? undefined : firmwareText(deployment.firmware)],
            ["TPM", deployment.runtime === "none" ? undefined : deployment.tpm ? "yes" : "no"],
          ]}
        />
      </Panel>
      {deployment.disks.length > 0 && <DisksPanel deployment={deployment} />}
      <Panel title="The group">
        <KeyValues
          items={[
            ["Members", count(deployment.count)],
            ["Fewest to succeed", count(deployment.min_count)],
            ["Ready when", readyText(ready)],
            ["Has to be ready within", ready.timeout_s ? duration(ready.timeout_s * 1000) : undefined],
            ["If it is not", deployment.on_ready_timeout === "stop" ? "its power is cut" : "it runs on"],
            [
              "After a restart of its host",
              deployment.runtime === "none"
                ? undefined
                : deployment.on_host_start === "stay"
                  ? "a member that ran stays off"
                  : "a member that ran starts again",
            ],
            ["Placement", placement.policy === "pack" ? "fills one node after the other" : "spread over the nodes"],
            ["Zones", placement.zones?.length ? placement.zones.join(", ") : undefined],
            [
              "Nodes",
              placement.nodes?.length ? (
                <Text key="nodes" span inherit>
                  {placement.nodes.join(", ")}
                </Text>
              ) : undefined,
            ],
            ["Most on one node", placement.max_per_node ? count(placement.max_per_node) : undefined],
          ]}
        />
      </Panel>
      <ProtectionPanel deployment={deployment} />
      {deployment.runtime !== "none" && <CardsPanel deployment={deployment} />}
      {deployment.runtime !== "none" && <SeedPanel deployment={deployment} />}
      <LabelsPanel labels={deployment.labels} onSave={(labels) => patch.mutateAsync({ deployment, labels })} />
      <Panel title="Record">
        <KeyValues
          items={[
            ["Project", deployment.project],
            ["Made", <TimeAgo key="made" time={deployment.created_at} />],
            ["Changed", <TimeAgo key="changed" time={deployment.updated_at} />],
            ["Id", <CopyId key="id" value={deployment.id} />],
          ]}
        />
      </Panel>
    </Stack>
  );
}

/** The disks that each member has beside the boot disk. */
function DisksPanel({ deployment }: { deployment: Deployment }) {
  const { disks, project, source } = deployment;
  return (
    <Panel title={disks.length > 1 ? "Further disks of each" : "Further disk of each"}>
      <Stack gap="md">
        {disks.map(({ name, size_bytes, source: from, source_name }) => (
          <KeyValues
            key={name}
            items={[
              ["Name", name],
              ["Size", <ByteSize key="size" value={size_bytes} />],
              [
                "Starts",
                from ? (
                  <Fragment key="from">
                    as{" "}
                    <ThingLink
                      kind={from.image ? "image" : "version"}
                      id={String(from.image ?? from.version)}
                      name={from.image ? diskSourceText(from, source_name) : source_name}
                      project={project}
                    />
                  </Fragment>
                ) : source.snapshot ? (
                  "as in the snapshot, or blank"
                ) : (
                  "blank"
                ),
              ],
            ]}
          />
        ))}
      </Stack>
    </Panel>
  );
}

/** The network cards that each member has. */
function CardsPanel({ deployment }: { deployment: Deployment }) {
  const { nics, project } = deployment;
  return (
    <Panel title={nics.length > 1 ? "Network cards of each" : "Network card of each"}>
      {nics.length === 0 ? (
        <Text size="sm" c="dimmed">
          None. Members are reached by their console and their disk only.
        </Text>
      ) : (
        <Stack gap="md">
          {nics.map((nic) => (
            <KeyValues
              key={nic.network}
              items={[
                [
                  "Network",
                  <ThingLink key="network" kind="network" id={nic.network} name={nic.network_name} project={project} />,
                ],
                ["Address", nic.address ?? undefined],
                ["Security groups", <GroupLinks key="groups" nic={nic} project={project} />],
                ["Published ports", nic.ports.map(portText).join(", ") || "none"],
              ]}
            />
          ))}
        </Stack>
      )}
    </Panel>
  );
}

/** What its guests are told at their first boot. User data may be secret, so it is asked for only when somebody wants it. */
function SeedPanel({ deployment }: { deployment: Deployment }) {
  const [shown, setShown] = useState(false);
  const userData = useUserData(deployment, shown);
  const keys = deployment.ssh_keys ?? [];
  return (
    <Panel title="Access and first boot">
      <KeyValues
        items={[
          [
            "SSH keys",
            keys.length === 0 ? (
              "none"
            ) : (
              <Stack key="keys" gap={4}>
                {keys.map((key) => (
                  <Text key={key.public_key} span inherit style={{ overflowWrap: "anywhere" }}>
                    {key.comment === "" ? key.type : `${key.comment} (${key.type})`} <code>{key.fingerprint}</code>
                  </Text>
                ))}
              </Stack>
            ),
          ],
          [
            "User data",
            deployment.user_data_bytes ? (
              <Group key="data" gap="xs">
                <ByteSize value={deployment.user_data_bytes} />
                <Button size="compact-xs" variant="default" onClick={() => setShown(!shown)} aria-expanded={shown}>
                  {shown ? "Hide" : "Show"}
                </Button>
              </Group>
            ) : (
              "none"
            ),
          ],
        ]}
      />
      {shown && userData.error !== null && <ErrorBox error={userData.error} title="It cannot be shown" />}
      {shown && userData.data !== undefined && (
        <Code block mt="sm" mah={320} style={{ overflow: "auto" }}>
          {userData.data}
        </Code>
      )}
    </Panel>
  );
}

function readyText(ready: Deployment["ready_when"]): string {
  switch (ready.probe) {
    case "console":
      return `its console shows ${ready.marker ?? "MUSTER-READY"}`;
    case "guest_agent":
      return "its guest agent answers";
    default:
      return "it runs";
  }
}
