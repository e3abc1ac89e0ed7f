import { Button, Text } from "@mantine/core";
import { IconPlus, IconShield } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { searchOf } from "../../api/scope.ts";
import { type SecurityGroup, useSecurityGroups } from "../../api/security-groups.ts";
import { useCommands } from "../../commands/registry.ts";
import { DeleteChosen } from "../../ui/DeleteThings.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";
import { ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { groupColumns } from "./columns.tsx";
import { DeleteGroups } from "./DeleteGroups.tsx";
import { NewSecurityGroup } from "./NewSecurityGroup.tsx";

const idOf = (group: SecurityGroup) => group.id;

/** All security groups, and what each lets through. */
export default function SecurityGroupList() {
  const groups = useSecurityGroups();
  const navigate = useNavigate();
  const [making, setMaking] = useState(false);
  useCommands(
    () => [
      { id: "new-group", title: "Make a security group", words: "new create firewall", run: () => setMaking(true) },
    ],
    [],
  );
  const button = (
    <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setMaking(true)}>
      New security group
    </Button>
  );
  const linkTo = ({ id, project }: SecurityGroup) => ({
    to: "/security-groups/$group" as const,
    params: { group: id },
    search: searchOf(project),
  });
  return (
    <Page
      title="Security groups"
      subtitle="What may reach the network cards of instances, and what may leave them. All else is dropped."
      actions={button}
    >
      <ThingsTable
        name="security groups"
        rows={groups.data?.items}
        complete={groups.data?.complete ?? false}
        error={groups.error}
        onRetry={() => void groups.refetch()}
        rowId={idOf}
        columns={groupColumns}
        sort="name"
        link={linkTo}
        bulk={(chosen, clear) => <DeleteChosen things={chosen} onDone={clear} dialog={DeleteGroups} />}
        empty={
          <EmptyState
            title="There are no security groups yet"
            icon={<IconShield size={24} />}
            action={button}
            cli="muster security-group create ssh --allow in:tcp:22"
          >
            <Text size="sm">
              The first deployment with a network card makes the group default: everything out, and in only from cards
              with the same group. Make others for what has to be reached.
            </Text>
          </EmptyState>
        }
      />
      <NewSecurityGroup
        opened={making}
        onClose={() => setMaking(false)}
        onMade={(made) => void navigate(linkTo(made))}
      />
    </Page>
  );
}
