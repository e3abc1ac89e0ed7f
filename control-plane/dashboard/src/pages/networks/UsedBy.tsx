import { List, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { type Deployment, useDeployments } from "../../api/deployments.ts";
import { count } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";

const mostShown = 12;

interface Props {
  /** Whether a card that the members of a deployment have uses the thing. */
  uses: (nic: Deployment["nics"][number]) => boolean;
  /** What is said where nothing uses it. */
  children: ReactNode;
}

/** The deployments whose members have cards with a network or a security group: they have to go before it can. */
export function UsedBy({ uses, children }: Props) {
  const deployments = useDeployments();
  const found = (deployments.data?.items ?? []).filter(({ nics, state }) => state !== "deleted" && nics.some(uses));
  return (
    <Panel title="Deployments that use it">
      {deployments.data === undefined ? (
        <Text size="sm" c="dimmed">
          {deployments.error === null ? "Looking for them…" : "They cannot be read now. The page tries again."}
        </Text>
      ) : found.length === 0 ? (
        <Text size="sm" c="dimmed">
          {children}
        </Text>
      ) : (
        <List size="sm">
          {found.slice(0, mostShown).map(({ id, name, project }) => (
            <List.Item key={id}>
              <ThingLink kind="deployment" id={id} name={name} project={project} />
            </List.Item>
          ))}
          {found.length > mostShown && <List.Item>and {count(found.length - mostShown)} more</List.Item>}
        </List>
      )}
    </Panel>
  );
}
