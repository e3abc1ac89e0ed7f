import { Alert, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useParams } from "@tanstack/react-router";
import { type Instance, useInstance, usePatchInstance } from "../../api/instances.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { bytes, count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { InstanceActions } from "./actions/InstanceActions.tsx";
import { unsavedBytes } from "./columns.tsx";
import { ConsolePanel } from "./console/ConsolePanel.tsx";
import { DisksPanel } from "./DisksPanel.tsx";
import { EventsPanel } from "./EventsPanel.tsx";
import { GuestPanel } from "./GuestPanel.tsx";
import classes from "./InstanceDetail.module.css";
import { LabelsPanel } from "./LabelsPanel.tsx";
import { NetworkPanel } from "./NetworkPanel.tsx";
import { StartLine } from "./StartLine.tsx";
import { StateCallout } from "./StateCallout.tsx";
import { explain } from "./state-words.ts";

const crumbs = [
  <TextLink key="list" to="/instances">
    Instances
  </TextLink>,
];

/** One instance: how it is and what to do, its start step by step, its disks, its console. */
export default function InstanceDetail() {
  const { instance: id } = useParams({ from: "/framed/instances/$instance" });
  const { data: instance, error, refetch } = useInstance(id);
  if (instance === undefined) {
    return <WaitingPage title="Instance" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <Shown key={instance.id} instance={instance} />;
}

function Shown({ instance }: { instance: Instance }) {
  const patch = usePatchInstance(instance);
  return (
    <Page
      title={instance.name}
      badge={<StateBadge state={instance.state} reason={instance.reason} tone={explain(instance).tone} />}
      crumbs={crumbs}
      subtitle={
        <>
          Member of{" "}
          <ThingLink
            kind="deployment"
            id={instance.deployment}
            name={instance.deployment_name}
            project={instance.project}
          />
          {instance.node !== undefined && (
            <>
              {" "}
              on <ThingLink kind="node" id={instance.node} name={instance.node_name ?? null} />
            </>
          )}
          , created <TimeAgo time={instance.created_at} />
        </>
      }
      actions={<InstanceActions instances={[instance]} />}
    >
      <StateCallout instance={instance} />
      {instance.conditions.map((condition) => (
        <Alert
          key={condition.kind}
          color="yellow"
          icon={<IconAlertTriangle size={18} />}
          title={conditionTitles[condition.kind] ?? condition.kind.replaceAll("_", " ")}
        >
          {condition.detail}
        </Alert>
      ))}
      <div className={classes.columns}>
        <Stack gap="md" miw={0}>
          <Panel title="Start, step by step">
            <StartLine instance={instance} />
          </Panel>
          <DisksPanel instance={instance} />
          <ConsolePanel instance={instance} />
        </Stack>
        <Stack gap="md" miw={0} className={classes.side}>
          <Panel title="About it">
            <KeyValues
              items={[
                ["Processors", count(instance.cpus)],
                ["Memory", bytes(instance.memory_bytes)],
                ["Host name", <CopyId key="host" value={instance.host_name} label="host name" />],
                ["Runtime", instance.runtime],
                ["Zone", instance.zone],
                ["Boots", count(instance.boots)],
                ["Not saved yet", bytes(instance.unsaved_bytes ?? unsavedBytes(instance))],
                ["All saved up to", savedUpTo(instance)],
                ["Project", instance.project],
                ["Generation", instance.generation === undefined ? undefined : count(instance.generation)],
                ["Id", <CopyId key="id" value={instance.id} />],
              ]}
            />
          </Panel>
          <NetworkPanel instance={instance} />
          <GuestPanel instance={instance} />
          <LabelsPanel labels={instance.labels} onSave={(labels) => patch.mutateAsync(labels)} />
          <EventsPanel instance={instance} />
        </Stack>
      </div>
      <Text size="xs" c="dimmed">
        The same at the command line: <CopyId value={`muster instance show ${instance.name}`} label="command" />
      </Text>
    </Page>
  );
}

/** Up to when all disks of an instance are saved; undefined where the controller does not tell. */
function savedUpTo({ saved_at }: Instance) {
  if (saved_at === undefined) return undefined;
  return saved_at === null ? "not all of it was ever saved" : <TimeAgo time={saved_at} />;
}

const conditionTitles: Record<string, string> = {
  identity_copied: "Its node's identity was copied",
  objects_lost: "Parts of its disk are lost",
  disk_unknown: "A disk of it is not known",
  disk_diverged: "A disk of it is further on its node than the database knows",
  guest_silent: "Its guest may not boot",
  guest_frozen: "Its file systems may still be frozen",
};
