import { Button, List, Text } from "@mantine/core";
import { useState } from "react";
import { type Deployment, useDeleteDeployment, usePower } from "../../api/deployments.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { count } from "../../ui/format.ts";
import { watchOperation } from "../../ui/OperationWatch.tsx";

type Verb = "start" | "stop" | "delete";

const words: Record<Verb, { title: string; confirm: string; means: string }> = {
  start: {
    title: "Start",
    confirm: "Start them",
    means: "Members that are stopped or failed start. Those that run are left alone.",
  },
  stop: {
    title: "Stop",
    confirm: "Stop them",
    means: "Each guest is asked to turn itself off; one that does not answer in time loses power. Disks are kept.",
  },
  delete: {
    title: "Delete",
    confirm: "Delete them",
    means: "All members and their disks are deleted. Snapshots, and versions that were made of them, stay.",
  },
};

/** Starts, stops or deletes the chosen deployments. */
export function DeploymentsBulk({ deployments, onDone }: { deployments: Deployment[]; onDone: () => void }) {
  const [asking, setAsking] = useState<Verb>();
  const power = usePower();
  const remove = useDeleteDeployment();
  const members = deployments.reduce((sum, deployment) => sum + deployment.count, 0);
  const one = deployments.length === 1 ? deployments[0] : undefined;
  const act = async (verb: Verb) => {
    for (const deployment of deployments) {
      watchOperation(
        verb === "delete" ? await remove.mutateAsync(deployment) : await power.mutateAsync({ deployment, verb }),
      );
    }
    onDone();
  };
  return (
    <>
      <Button size="compact-sm" variant="default" onClick={() => setAsking("start")}>
        Start
      </Button>
      <Button size="compact-sm" variant="default" onClick={() => setAsking("stop")}>
        Stop
      </Button>
      <Button size="compact-sm" color="red" onClick={() => setAsking("delete")}>
        Delete
      </Button>
      {asking !== undefined && (
        <ConfirmDialog
          opened
          onClose={() => setAsking(undefined)}
          title={`${words[asking].title} ${one === undefined ? `${deployments.length} deployments` : one.name}?`}
          confirm={words[asking].confirm}
          danger={asking !== "start"}
          typed={asking === "delete" ? "delete" : undefined}
          onConfirm={() => act(asking)}
        >
          <Text size="sm">{words[asking].means}</Text>
          <List size="sm" mt="xs">
            {deployments.slice(0, 10).map((deployment) => (
              <List.Item key={deployment.id}>
                {deployment.name}: {count(deployment.count)} {deployment.count === 1 ? "member" : "members"}
              </List.Item>
            ))}
            {deployments.length > 10 && <List.Item>and {deployments.length - 10} more</List.Item>}
          </List>
          <Text size="sm" mt="xs">
            {count(members)} {members === 1 ? "member" : "members"} in all.
          </Text>
        </ConfirmDialog>
      )}
    </>
  );
}
