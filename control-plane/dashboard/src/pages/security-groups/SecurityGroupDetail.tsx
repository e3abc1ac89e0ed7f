import { Alert, List, Text } from "@mantine/core";
import { useNavigate, useParams } from "@tanstack/react-router";
import {
  type SecurityGroup,
  usePatchSecurityGroup,
  useSecurityGroup,
  useSecurityGroups,
} from "../../api/security-groups.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TwoColumns } from "../../ui/TwoColumns.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { LabelsPanel } from "../instances/LabelsPanel.tsx";
import { AboutIt, useChangeOrDelete } from "../networks/ChangeOrDelete.tsx";
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
  const { asking, stopAsking, gone, actions } = useChangeOrDelete("security group", group);
  const patch = usePatchSecurityGroup();
  const navigate = useNavigate();
  return (
    <Page
      title={group.name}
      crumbs={crumbs}
      subtitle="A card with several groups lets through what one of them does. Answers always pass."
      actions={actions}
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
            <AboutIt thing={group} />
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
      <ChangeRules opened={asking === "change"} onClose={stopAsking} group={group} />
      <DeleteGroups
        opened={asking === "delete"}
        onClose={stopAsking}
        things={[group]}
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
