import { Skeleton, Tabs } from "@mantine/core";
import { useParams } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { ApiError } from "../../api/client.ts";
import { type Deployment, useDeployment } from "../../api/deployments.ts";
import { useInstances } from "../../api/instances.ts";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { bytes, count } from "../../ui/format.ts";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { DeploymentActions } from "./actions/DeploymentActions.tsx";
import classes from "./DeploymentDetail.module.css";
import { EventsTab } from "./EventsTab.tsx";
import { Gone } from "./Gone.tsx";
import { MembersTab } from "./members/MembersTab.tsx";
import { ProtectionTrouble } from "./protection/ProtectionPanel.tsx";
import { SettingsTab } from "./settings/SettingsTab.tsx";
import { SourceLink } from "./source.tsx";
import { Timeline } from "./timeline/Timeline.tsx";
import { UnderWay } from "./UnderWay.tsx";

const crumbs = [
  <TextLink key="list" to="/deployments">
    Deployments
  </TextLink>,
];

/** One deployment: how its members come up, who they are, how it is set up, what happened. */
export default function DeploymentDetail() {
  const { deployment: id } = useParams({ from: "/framed/deployments/$deployment" });
  const { data: deployment, error, refetch } = useDeployment(id);
  if (deployment === undefined) {
    return <WaitingPage title="Deployment" crumbs={crumbs} error={error} onRetry={() => void refetch()} />;
  }
  if (error instanceof ApiError && error.code === "not_found") return <Gone deployment={deployment} crumbs={crumbs} />;
  return (
    <Page
      title={deployment.name}
      badge={<StateBadge state={deployment.state} reason={deployment.reason} />}
      crumbs={crumbs}
      subtitle={
        <span className={classes.subtitle}>
          {count(deployment.ready)} of {count(deployment.count)} ready · from <SourceLink deployment={deployment} /> ·{" "}
          {deployment.runtime === "none"
            ? "disk files only"
            : `${deployment.cpus} ${deployment.cpus === 1 ? "CPU" : "CPUs"}, ${bytes(deployment.memory_bytes)} each`}{" "}
          · made <TimeAgo time={deployment.created_at} />
        </span>
      }
      actions={<DeploymentActions deployment={deployment} />}
    >
      {error !== null && <ErrorBox error={error} title="What you see may be out of date" />}
      <UnderWay deployment={deployment} />
      <ProtectionTrouble deployment={deployment} />
      <Parts deployment={deployment} />
    </Page>
  );
}

const tabs = ["timeline", "members", "settings", "events"] as const;
const titles = { timeline: "Timeline", members: "Members", settings: "Settings", events: "Events" };

function Parts({ deployment }: { deployment: Deployment }) {
  const [{ tab }, setSearch] = useSearchState({ tab: "timeline" });
  const members = useInstances({ deployment: [deployment.id] });
  const shown = tabs.find((each) => each === tab) ?? "timeline";
  const parts: Record<(typeof tabs)[number], () => ReactNode> = {
    timeline: () =>
      members.data !== undefined ? (
        <Timeline deployment={deployment} members={members.data} />
      ) : members.error !== null ? (
        <ErrorBox error={members.error} title="The members cannot be read" onRetry={() => void members.refetch()} />
      ) : (
        <Skeleton height={320} role="status" aria-label="Loading the members" />
      ),
    members: () => <MembersTab deployment={deployment} members={members} />,
    settings: () => <SettingsTab deployment={deployment} />,
    events: () => <EventsTab deployment={deployment} />,
  };
  return (
    <Tabs value={shown} onChange={(value) => setSearch({ tab: value ?? "timeline" }, "push")} keepMounted={false}>
      <Tabs.List mb="md" className={classes.tabs}>
        {tabs.map((each) => (
          <Tabs.Tab key={each} value={each}>
            {titles[each]}
            {each === "members" && ` (${count(deployment.count)})`}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {tabs.map((each) => (
        <Tabs.Panel key={each} value={each}>
          {each === shown && parts[each]()}
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
