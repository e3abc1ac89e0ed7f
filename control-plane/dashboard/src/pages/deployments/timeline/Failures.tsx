import { Alert, List, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { Deployment } from "../../../api/deployments.ts";
import { searchOf } from "../../../api/scope.ts";
import { count } from "../../../ui/format.ts";
import { TextLink } from "../../../ui/links.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import { explain } from "../../instances/state-words.ts";
import classes from "./Timeline.module.css";
import { failures, type Track } from "./tracks.ts";

/** Which members failed or are not ready in time, why, and what to do. Nothing is shown while there are none. */
export function Failures({ tracks, deployment }: { tracks: readonly Track[]; deployment: Deployment }) {
  const groups = failures(tracks);
  if (groups.length === 0) return null;
  const sum = (phase: Track["phase"]) =>
    groups.reduce((total, group) => total + group.filter((track) => track.phase === phase).length, 0);
  const said = [
    sum("failed") > 0 ? `${count(sum("failed"))} failed` : "",
    sum("late") > 0 ? `${count(sum("late"))} not ready in time` : "",
  ].filter(Boolean);
  return (
    <Alert
      variant="default"
      color="red"
      className={classes.failures}
      icon={<IconAlertTriangle size={18} />}
      title={`${said.join(", ")} of ${count(tracks.length)} ${tracks.length === 1 ? "member" : "members"}`}
    >
      <Stack gap="xs">
        <List size="sm" spacing={6}>
          {groups.map((group) => (
            <List.Item key={`${group[0]?.phase} ${group[0]?.member.reason}`}>
              <Group group={group} />
            </List.Item>
          ))}
        </List>
        <TextLink
          size="sm"
          to="/deployments/$deployment"
          params={{ deployment: deployment.id }}
          search={
            {
              ...searchOf(deployment.project),
              tab: "members",
              reason: groups.flatMap((group) => group[0]?.member.reason ?? []),
            } as never
          }
        >
          List them all
        </TextLink>
      </Stack>
    </Alert>
  );
}

/** Members with the same reason. */
function Group({ group }: { group: Track[] }) {
  const first = group[0]?.member;
  if (first === undefined) return null;
  const { says, next } = explain(first);
  return (
    <>
      <Text span inherit fw={600}>
        {count(group.length)} {first.reason ?? first.state}
      </Text>{" "}
      (
      {group.slice(0, 3).map(({ member }, index) => (
        <span key={member.id}>
          {index > 0 && ", "}
          <ThingLink kind="instance" id={member.id} name={member.name} project={member.project} />
        </span>
      ))}
      {group.length > 3 && ` and ${count(group.length - 3)} more`}): {says} {next}
      {first.detail !== null && (
        <Text size="xs" c="dimmed">
          {group.length > 1 ? `${first.name}: ` : ""}
          {first.detail}
        </Text>
      )}
    </>
  );
}
