import { Button, type ButtonProps } from "@mantine/core";
import {
  IconCamera,
  IconLifebuoy,
  IconPlayerPlay,
  IconPlayerStop,
  IconRefresh,
  IconTrash,
  type TablerIcon,
} from "@tabler/icons-react";
import { Suspense, useState } from "react";
import type { Instance, Verb } from "../../../api/instances.ts";
import { lazyPart } from "../../../app/parts.ts";
import { useCommands } from "../../../commands/registry.ts";
import { fits } from "../state-words.ts";
import { ActDialog } from "./ActDialog.tsx";
import { RecoverDialog } from "./RecoverDialog.tsx";

// Most who look at instances take no snapshot.
const CreateSnapshot = lazyPart(() => import("../../snapshots/CreateSnapshot.tsx"));

type Action = Verb | "snapshot";

const actions: { action: Action; title: string; icon: TablerIcon }[] = [
  { action: "recover", title: "Recover", icon: IconLifebuoy },
  { action: "start", title: "Start", icon: IconPlayerPlay },
  { action: "stop", title: "Stop", icon: IconPlayerStop },
  { action: "reboot", title: "Reboot", icon: IconRefresh },
  { action: "snapshot", title: "Snapshot", icon: IconCamera },
  { action: "delete", title: "Delete", icon: IconTrash },
];

/** The buttons for one instance or for many, and the dialogs behind them. What fits none of them is not shown. */
export function InstanceActions({
  instances,
  onDone,
  size = "xs",
}: {
  instances: readonly Instance[];
  onDone?: () => void;
  size?: ButtonProps["size"];
}) {
  const [asking, setAsking] = useState<Action>();
  const fitting = (action: Action) => instances.filter((instance) => fits(action, instance));
  const offered = actions.filter(({ action }) => instances.some((instance) => fits(action, instance)));
  const one = instances.length === 1 ? instances[0] : undefined;
  const about = one === undefined ? `${instances.length} instances` : one.name;
  useCommands(
    () =>
      offered.map(({ action, title }) => ({ id: action, title: `${title} ${about}`, run: () => setAsking(action) })),
    [offered.map(({ action }) => action).join(), about],
  );
  const close = () => setAsking(undefined);
  const chosen = asking === undefined ? [] : fitting(asking);
  return (
    <>
      {offered.map(({ action, title, icon: Icon }) => (
        <Button
          key={action}
          size={size}
          variant={action === "recover" ? "filled" : "default"}
          leftSection={<Icon size={15} color={action === "delete" ? "var(--state-bad)" : undefined} />}
          onClick={() => setAsking(action)}
        >
          {title}
        </Button>
      ))}
      {asking === "snapshot" && (
        <Suspense>
          <CreateSnapshot opened onClose={close} onCreated={onDone} instances={chosen} />
        </Suspense>
      )}
      {asking === "recover" && <RecoverDialog instances={chosen} onClose={close} onDone={onDone} />}
      {asking !== undefined && asking !== "snapshot" && asking !== "recover" && (
        <ActDialog
          verb={asking}
          instances={chosen}
          leftAlone={instances.length - chosen.length}
          onClose={close}
          onDone={onDone}
        />
      )}
    </>
  );
}
