import { Button, Menu } from "@mantine/core";
import {
  IconCamera,
  IconChevronDown,
  IconPlayerPlay,
  IconPlayerStop,
  IconPlusMinus,
  IconRefresh,
  IconReload,
  IconTrash,
} from "@tabler/icons-react";
import { Suspense, useState } from "react";
import type { Deployment } from "../../../api/deployments.ts";
import { lazyPart } from "../../../app/parts.ts";
import { useCommands } from "../../../commands/registry.ts";
import { DeleteDialog } from "./DeleteDialog.tsx";
import { PowerDialog } from "./PowerDialog.tsx";
import { RetryDialog } from "./RetryDialog.tsx";
import { ScaleDialog } from "./ScaleDialog.tsx";

// Most who look at a deployment take no snapshot.
const CreateSnapshot = lazyPart(() => import("../../snapshots/CreateSnapshot.tsx"));

const actions = {
  scale: { title: "Scale", icon: IconPlusMinus },
  snapshot: { title: "Snapshot", icon: IconCamera },
  retry: { title: "Retry", icon: IconReload },
  start: { title: "Start", icon: IconPlayerPlay },
  stop: { title: "Stop", icon: IconPlayerStop },
  reboot: { title: "Reboot", icon: IconRefresh },
  delete: { title: "Delete", icon: IconTrash },
} as const;
type Action = keyof typeof actions;

/** Which actions make sense now. The API decides; this only leaves out what would do nothing. */
function sensible({ state, counts, ready }: Deployment): Action[] {
  if (state === "deleting" || state === "deleted") return [];
  const failed = (counts.failed ?? 0) > 0 || (state === "degraded" && ready < (counts.running ?? 0));
  const runs = (counts.running ?? 0) + (counts.starting ?? 0) + (counts.paused ?? 0) > 0;
  const stopped = (counts.stopped ?? 0) + (counts.stopping ?? 0) > 0;
  return [
    ...(failed ? (["retry"] as const) : []),
    ...(stopped ? (["start"] as const) : []),
    "scale",
    ...(runs || stopped ? (["snapshot"] as const) : []),
    ...(runs ? (["stop", "reboot"] as const) : []),
    "delete",
  ];
}

/** The buttons of a deployment and their dialogs: two at hand, the rest in a menu. */
export function DeploymentActions({ deployment }: { deployment: Deployment }) {
  const [asking, setAsking] = useState<Action>();
  const offered = sensible(deployment);
  const list = offered.join(" ");
  useCommands(
    () =>
      (list === "" ? [] : (list.split(" ") as Action[])).map((action) => ({
        id: action,
        title: `${actions[action].title} ${deployment.name}`,
        run: () => setAsking(action),
      })),
    [list, deployment.name],
  );
  const close = () => setAsking(undefined);
  const [first, second, ...rest] = offered;
  if (first === undefined) return null;
  return (
    <>
      {[first, second].map(
        (action) => action !== undefined && <Act key={action} action={action} onClick={setAsking} />,
      )}
      {rest.length > 0 && (
        <Menu position="bottom-end" shadow="md">
          <Menu.Target>
            <Button size="xs" variant="default" rightSection={<IconChevronDown size={14} />}>
              More
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            {rest.map((action) => {
              const { title, icon: Icon } = actions[action];
              return (
                <Menu.Item
                  key={action}
                  leftSection={<Icon size={15} />}
                  color={action === "delete" ? "red" : undefined}
                  onClick={() => setAsking(action)}
                >
                  {title}
                </Menu.Item>
              );
            })}
          </Menu.Dropdown>
        </Menu>
      )}
      {asking === "scale" && <ScaleDialog deployment={deployment} onClose={close} />}
      {asking === "retry" && <RetryDialog deployment={deployment} onClose={close} />}
      {asking === "snapshot" && (
        <Suspense>
          <CreateSnapshot opened deployment={deployment} onClose={close} />
        </Suspense>
      )}
      {asking === "delete" && <DeleteDialog deployment={deployment} onClose={close} />}
      {(asking === "start" || asking === "stop" || asking === "reboot") && (
        <PowerDialog deployment={deployment} verb={asking} onClose={close} />
      )}
    </>
  );
}

function Act({ action, onClick }: { action: Action; onClick: (action: Action) => void }) {
  const { title, icon: Icon } = actions[action];
  return (
    <Button size="xs" variant="default" leftSection={<Icon size={15} />} onClick={() => onClick(action)}>
      {title}
    </Button>
  );
}
