import { Alert, Button, Group, List, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { defaultName } from "../../../api/networks.ts";
import {
  type CreateRule,
  type SecurityGroup,
  useCreateSecurityGroup,
  usePatchSecurityGroup,
  useSecurityGroups,
} from "../../../api/security-groups.ts";
import { toastDone, toastError } from "../../../ui/toast.tsx";
import { asRequest, groupNameFor, isOpen, type Port, portText } from "../../security-groups/rules.ts";
import { type Card, publishedBy } from "./cards.ts";

interface Props {
  card: Card;
  project: string | undefined;
  onGroups: (groups: string[]) => void;
}

/** Warns of published ports that no rule of the card's groups lets in, and opens each with one click. */
export function ClosedPorts({ card, project, onGroups }: Props) {
  const groups = useSecurityGroups();
  const create = useCreateSecurityGroup();
  const patch = usePatchSecurityGroup();
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  if (groups.data?.complete !== true) return null;
  const known = groups.data.items.filter((group) => project === undefined || group.project === project);
  const own = known.filter(({ name }) => card.groups.includes(name));
  const rules = own.flatMap((group) => group.rules);
  const closed = publishedBy(card).filter((port) => !isOpen(rules, port));
  if (closed.length === 0) return null;

  const act = async (what: () => Promise<void>) => {
    setBusy(true);
    try {
      await what();
      await client.invalidateQueries({ queryKey: ["security-groups"] });
    } catch (error) {
      toastError(error, "The port is still closed");
    } finally {
      setBusy(false);
    }
  };
  const ruleFor = ({ port, protocol }: Port): CreateRule => ({
    direction: "in",
    protocol: protocol ?? "tcp",
    ports: String(port),
  });
  const make = (port: Port) =>
    act(async () => {
      const name = groupNameFor(
        port,
        known.map((group) => group.name),
      );
      const made = await create.mutateAsync({ project, request: { name, rules: [ruleFor(port)] } });
      toastDone(`Security group ${made.name} is made`);
      onGroups([...card.groups, made.name]);
    });
  const extend = (group: SecurityGroup, port: Port) =>
    act(async () => {
      const changed = [...group.rules.map(asRequest), ruleFor(port)];
      await patch.mutateAsync({ group, patch: { rules: changed }, ifMatch: group.etag });
      toastDone(`Security group ${group.name} lets in ${portText(port)}`);
    });

  return (
    <Alert color="yellow" icon={<IconAlertTriangle size={18} />} title="Published, but closed">
      <Text size="sm" mb={6}>
        No rule of the card's groups lets these in from outside, so nobody reaches them:
      </Text>
      <List size="sm" listStyleType="none" spacing={6}>
        {closed.map((port) => {
          const fitting = known.filter((group) => !card.groups.includes(group.name) && isOpen(group.rules, port));
          // The one that opens the least.
          const [best] = fitting.sort((a, b) => a.rules.length - b.rules.length);
          const extendable = own.find(({ name }) => name !== defaultName);
          return (
            <List.Item key={portText(port)}>
              <Group gap="xs">
                <Text span size="sm" fw={600}>
                  {portText(port)}
                </Text>
                {best === undefined ? (
                  <Button size="compact-xs" variant="default" loading={busy} onClick={() => void make(port)}>
                    Make a group that lets it in
                  </Button>
                ) : (
                  <Button size="compact-xs" variant="default" onClick={() => onGroups([...card.groups, best.name])}>
                    Add group {best.name}
                  </Button>
                )}
                {extendable !== undefined && (
                  <Button
                    size="compact-xs"
                    variant="default"
                    loading={busy}
                    onClick={() => void extend(extendable, port)}
                  >
                    Add a rule to {extendable.name}
                  </Button>
                )}
              </Group>
            </List.Item>
          );
        })}
      </List>
    </Alert>
  );
}
