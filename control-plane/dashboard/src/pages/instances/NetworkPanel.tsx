import { Group, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useDeployment } from "../../api/deployments.ts";
import { imageQuery } from "../../api/images.ts";
import type { Instance } from "../../api/instances.ts";
import type { Nic } from "../../api/networks.ts";
import { useSecurityGroups } from "../../api/security-groups.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { GroupLinks } from "../networks/GroupLinks.tsx";
import { reachedAt, sshLine } from "../networks/network-words.ts";
import { isOpen, portText } from "../security-groups/rules.ts";
import classes from "./NetworkPanel.module.css";

/** The network cards: their addresses, what reaches them, and how one signs in. */
export function NetworkPanel({ instance }: { instance: Instance }) {
  const { nics, project } = instance;
  const user = useUser(instance, nics.length > 0);
  return (
    <Panel title={nics.length > 1 ? "Network cards" : "Network card"}>
      {nics.length === 0 ? (
        <Text size="sm" c="dimmed">
          None. It is reached by its console and its disk only.
        </Text>
      ) : (
        <Stack gap="lg">
          {nics.map((nic) => (
            <Card key={nic.network} nic={nic} project={project} user={user} />
          ))}
          <Text size="xs" c="dimmed" component="div">
            The command line signs in through the controller, also without a published port:{" "}
            <CopyId value={`muster ssh ${instance.name}`} label="command" />
          </Text>
        </Stack>
      )}
    </Panel>
  );
}

function Card({ nic, project, user }: { nic: Nic; project: string; user: string | null }) {
  const copied = (value: string | null, label: string) =>
    value === null ? undefined : <CopyId key={label} value={value} label={label} />;
  return (
    <div className={classes.card}>
      <KeyValues
        items={[
          [
            "Network",
            <ThingLink key="network" kind="network" id={nic.network} name={nic.network_name} project={project} />,
          ],
          ["Address", copied(nic.address_v4, "address") ?? "given by the hosts' network"],
          ["Security groups", <GroupLinks key="groups" nic={nic} project={project} />],
          ["MAC address", copied(nic.mac, "MAC address")],
          ["IPv6 address", copied(nic.address_v6, "IPv6 address")],
        ]}
      />
      {nic.ports.length > 0 && <Ports nic={nic} project={project} user={user} />}
    </div>
  );
}

/** The published ports: where each is reached, whether it is closed, and the line that signs in by it. */
function Ports({ nic, project, user }: { nic: Nic; project: string; user: string | null }) {
  const groups = useSecurityGroups();
  const own = groups.data?.items.filter(({ id }) => nic.security_groups.includes(id));
  // Nothing is said to be closed before all its groups are read.
  const rules =
    own === undefined || own.length < nic.security_groups.length ? undefined : own.flatMap((group) => group.rules);
  return (
    <Stack gap={8} mt="sm">
      <Text size="xs" c="dimmed">
        Reached from outside
      </Text>
      {nic.ports.map((port) => {
        const at = reachedAt(port);
        const line = sshLine(port, user);
        const closed = rules !== undefined && !isOpen(rules, port);
        return (
          <div key={portText(port)}>
            <Group gap={6}>
              <Text size="sm">{portText(port)} at</Text>
              {at === null ? (
                <Text size="sm" c="dimmed">
                  port {port.node_port} of its node, once it has one
                </Text>
              ) : (
                <CopyId value={at} label="address and port" />
              )}
            </Group>
            {closed ? (
              <Group gap={6} wrap="nowrap" align="flex-start">
                <IconAlertTriangle
                  size={15}
                  color="var(--state-warn)"
                  aria-hidden
                  style={{ flex: "none", marginTop: 2 }}
                />
                <Text size="sm" component="div" className={classes.closed}>
                  Closed: no rule of its security groups lets this in from outside.
                  {nic.security_groups.length > 0 && (
                    <>
                      {" "}
                      Add one to <GroupLinks nic={nic} project={project} />.
                    </>
                  )}
                </Text>
              </Group>
            ) : (
              line !== null && (
                <>
                  <CopyId value={line} label="command that signs in" />
                  {user === null && (
                    <Text size="xs" c="dimmed">
                      Nobody said which user its image has for signing in, so this tries root.
                    </Text>
                  )}
                </>
              )
            )}
          </div>
        );
      })}
    </Stack>
  );
}

/** The user that the image of an instance has for signing in; null if it is not known. */
function useUser(instance: Instance, wanted: boolean): string | null {
  const { data: deployment } = useDeployment(instance.deployment);
  const image = deployment?.source.image ?? "";
  const { data } = useQuery({ ...imageQuery(image), enabled: wanted && image !== "" });
  return data?.default_user ?? null;
}
