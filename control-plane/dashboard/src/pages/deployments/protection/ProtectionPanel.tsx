import { Alert, Button, Group, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useState } from "react";
import { type Deployment, type Protection, usePatchProtect } from "../../../api/deployments.ts";
import { ConfirmDialog } from "../../../ui/ConfirmDialog.tsx";
import { KeyValues } from "../../../ui/KeyValues.tsx";
import { Panel } from "../../../ui/Panel.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import { TimeAgo } from "../../../ui/TimeAgo.tsx";
import { toastDone } from "../../../ui/toast.tsx";
import { ProtectDialog } from "./ProtectDialog.tsx";
import { keepText, protectOf } from "./protect-form.ts";

/** Whether the members are saved by themselves, how far that is, and the buttons that change it. */
export function ProtectionPanel({ deployment }: { deployment: Deployment }) {
  const [asking, setAsking] = useState<"change" | "end">();
  const patch = usePatchProtect();
  const protect = protectOf(deployment);
  return (
    <Panel
      title="Protection"
      aside={
        <Group gap={6}>
          <Button size="compact-xs" variant="default" onClick={() => setAsking("change")}>
            {protect === undefined ? "Protect" : "Change"}
          </Button>
          {protect !== undefined && (
            <Button size="compact-xs" variant="default" onClick={() => setAsking("end")}>
              End
            </Button>
          )}
        </Group>
      }
    >
      {protect === undefined ? (
        <Text size="sm" c="dimmed">
          None. What guests wrote since somebody took a snapshot is on their nodes only, and lost with them.
        </Text>
      ) : (
        <KeyValues
          items={[
            ["Saved every", protect.every],
            ["Snapshots that stay", keepText(protect.keep)],
            ...progress(deployment.protection, deployment.project),
            ["Not saved", deployment.protection?.trouble ?? undefined],
          ]}
        />
      )}
      {asking === "change" && <ProtectDialog deployment={deployment} onClose={() => setAsking(undefined)} />}
      <ConfirmDialog
        opened={asking === "end"}
        onClose={() => setAsking(undefined)}
        title={`End the protection of ${deployment.name}?`}
        confirm="End it"
        danger
        onConfirm={async () => {
          await patch.mutateAsync({ deployment, protect: null });
          toastDone(`${deployment.name} is not saved by itself any more`);
        }}
      >
        <Text size="sm">
          No more snapshots are taken by themselves. Those that are there stay until somebody deletes them.
        </Text>
      </ConfirmDialog>
    </Panel>
  );
}

function progress(protection: Protection | null | undefined, project: string) {
  if (!protection) return [];
  const { last_saved_at, last_snapshot, last_snapshot_name, next_at, under_way } = protection;
  const link = (id: string, name: string | null) => <ThingLink kind="snapshot" id={id} name={name} project={project} />;
  return [
    ["Saved", last_saved_at === null ? "nothing yet" : <TimeAgo key="saved" time={last_saved_at} />],
    ["Newest of these snapshots", last_snapshot === null ? "none yet" : link(last_snapshot, last_snapshot_name)],
    ["Next", under_way === null ? <TimeAgo key="next" time={next_at} /> : link(under_way, "under way")],
  ] as const;
}

/** Why not everything is saved, if so. */
export function ProtectionTrouble({ deployment }: { deployment: Deployment }) {
  const trouble = deployment.protection?.trouble;
  if (!trouble) return null;
  return (
    <Alert color="yellow" icon={<IconAlertTriangle size={18} />} title="Not all of it is protected">
      {trouble}
    </Alert>
  );
}
