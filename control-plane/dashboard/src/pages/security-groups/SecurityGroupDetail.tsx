import { Alert, Button, List, Text } from "@mantine/core";
import { IconPencil, IconTrash } from "@tabler/icons-react";
import { useNavigate, useParams } from "@tanstack/react-router";
import { useState } from "react";
import {
  type SecurityGroup,
  usePatchSecurityGroup,
  useSecurityGroup,
  useSecurityGroups,
} from "../../api/security-groups.ts";
import { useCommands } from "../../commands/registry.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { TwoColumns } from "../../ui/TwoColumns.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { LabelsPanel } from "../instances/LabelsPanel.tsx";
import { UsedBy } from "../networks/UsedBy.tsx";
import { ChangeRules } from "./ChangeRules.tsx";
import { DeleteGroups } from "./DeleteGroups.tsx";
import { RuleList } from "./RuleList.tsx";
import { ruleText } from "./rules.ts";

const crumbs = [
  <TextLink key="list" to="/security-groups">
    Security groups
  </TextLink>,
];

/** One security group: what it lets through, and whose cards have it. */
export default function SecurityGroupDetail() {
  const { group: id } = useParams({ from: "/framed/security-groups/$group" });
  const { data: group, error, refetch } = useSecurityGroup(id);
  if (group === undefined) {
    return <WaitingPage title="Security group" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <Shown key={group.id} group={group} />;
}

function Shown({ group }: { group: SecurityGroup }) {
  const [asking, setAsking] = useState<"change" | "delete">();
  const patch = usePatchSecurityGroup();
  const navigate = useNavigate();
  const gone = group.state === "deleted";
  useCommands(
    () =>
      gone
        ? []
        : [
            { id: "change", title: `Change security group ${group.name}`, run: () => setAsking("change") },
            { id: "delete", title: `Delete security group ${group.name}`, run: () => setAsking("delete") },
          ],
    [group.name, gone],
  );
  return (
    <Page
      title={group.name}
      crumbs={crumbs}
      subtitle="A card with several groups lets through what one of them does. Answers always pass."
      actions={
        gone ? undefined : (
          <>
            <Button
              size="xs"
              variant="default"
              leftSection={<IconPencil size={15} />}
              onClick={() => setAsking("change")}
            >
              Change
            </Button>
            <Button
              size="xs"
              variant="default"
              leftSection={<IconTrash size={15} color="var(--state-bad)" />}
              onClick={() => setAsking("delete")}
            >
              Delete
            </Button>
          </>
        )
      }
    >
      {gone && (
        <Alert color="gray" title="It is deleted">
          It is shown for 24 hours. No card has it any more.
        </Alert>
      )}
      <TwoColumns
        side={
          <>
            <UsedBy uses={(nic) => nic.security_groups.includes(group.id)}>
              None. Deployments name it for the network cards of their members.
            </UsedBy>
            <NamedBy group={group} />
            <LabelsPanel labels={group.labels} onSave={(labels) => patch.mutateAsync({ group, patch: { labels } })} />
            <Panel title="About it">
              <KeyValues
                items={[
                  ["Project", group.project],
                  ["Created", <TimeAgo key="created" time={group.created_at} />],
                  ["Changed", <TimeAgo key="changed" time={group.updated_at} />],
                  ["Id", <CopyId key="id" value={group.id} />],
                ]}
              />
            </Panel>
          </>
        }
      >
        <Panel title="Rules">
          <RuleList rules={group.rules} project={group.project} />
        </Panel>
      </TwoColumns>
      <Text size="xs" c="dimmed">
        The same rules at the command line:{" "}
        <CopyId
          value={`muster security-group set ${group.name} ${
            group.rules.map((rule) => `--allow ${ruleText(rule)}`).join(" ") || "--allow-nothing"
          }`}
          label="command"
        />
      </Text>
      <ChangeRules opened={asking === "change"} onClose={() => setAsking(undefined)} group={group} />
      <DeleteGroups
        opened={asking === "delete"}
        onClose={() => setAsking(undefined)}
        groups={[group]}
        onDone={() => void navigate({ to: "/security-groups" })}
      />
    </Page>
  );
}

/** The other groups whose rules name this one. */
function NamedBy({ group }: { group: SecurityGroup }) {
  const groups = useSecurityGroups().data?.items ?? [];
  const naming = groups.filter(
    ({ id, rules }) => id !== group.id && rules.some(({ from, to }) => from === group.id || to === group.id),
  );
  if (naming.length === 0) return null;
  return (
    <Panel title="Groups whose rules name it">
      <List size="sm">
        {naming.map(({ id, name, project }) => (
          <List.Item key={id}>
            <ThingLink kind="security_group" id={id} name={name} project={project} />
          </List.Item>
        ))}
      </List>
    </Panel>
  );
}
