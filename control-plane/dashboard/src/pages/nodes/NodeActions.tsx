import { ActionIcon, Button, Menu, Text } from "@mantine/core";
import { IconDots, IconPlugConnectedX, IconTrash, IconTruckDelivery } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { type Node, useDrain, useFence, useRemoveNode, useSetSchedulable } from "../../api/nodes.ts";
import { useCommands } from "../../commands/registry.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../ui/format.ts";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { toastDone, toastError } from "../../ui/toast.tsx";

/** What one can do with a node. */
export function NodeActions({ node }: { node: Node }) {
  const navigate = useNavigate();
  const [asking, setAsking] = useState<"fence" | "remove" | "drain">();
  const set = useSetSchedulable();
  const fence = useFence();
  const remove = useRemoveNode();
  const drain = useDrain();
  const isDrained = node.drain != null;
  const isFenced = node.state === "fenced";
  // The API refuses to remove such a node, unless it was declared dead. Objects are drained by the removal.
  const isInUse = !isFenced && node.instances > 0;
  const objects = `${count(node.pool.objects)} ${node.pool.objects === 1 ? "object" : "objects"}, ${bytes(node.pool.used_bytes)},`;
  const placing = isDrained ? "End the drain of" : node.schedulable ? "Cordon" : "Uncordon";
  const place = async () => {
    try {
      await set.mutateAsync({ node, schedulable: isDrained || !node.schedulable });
      toastDone(node.schedulable && !isDrained ? `${node.name} is cordoned` : `${node.name} takes new instances again`);
    } catch (error) {
      toastError(error);
    }
  };
  useCommands(
    () => [
      ...(isFenced
        ? []
        : [
            { id: "place", title: `${placing} ${node.name}`, run: () => void place() },
            ...(isDrained ? [] : [{ id: "drain", title: `Drain ${node.name}`, run: () => setAsking("drain") }]),
            { id: "fence", title: `Declare ${node.name} dead`, words: "fence lost", run: () => setAsking("fence") },
          ]),
      ...(isInUse ? [] : [{ id: "remove", title: `Remove ${node.name}`, run: () => setAsking("remove") }]),
    ],
    [node.name, node.schedulable, isFenced, isInUse, isDrained],
  );
  if (node.state === "deleted") return null;
  return (
    <>
      {isFenced ? (
        <Button size="xs" variant="default" onClick={() => setAsking("remove")}>
          Remove
        </Button>
      ) : (
        <Button size="xs" variant="default" loading={set.isPending} onClick={() => void place()}>
          {isDrained ? "End the drain" : placing}
        </Button>
      )}
      {!isFenced && (
        <Menu position="bottom-end" shadow="md" width={300}>
          <Menu.Target>
            <ActionIcon variant="default" size={30} aria-label="More actions">
              <IconDots size={16} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item
              leftSection={<IconTruckDelivery size={15} />}
              disabled={isDrained}
              onClick={() => setAsking("drain")}
            >
              Drain
            </Menu.Item>
            <Menu.Divider />
            <Menu.Item leftSection={<IconTrash size={15} />} disabled={isInUse} onClick={() => setAsking("remove")}>
              Remove
              {isInUse && (
                <Text size="xs" component="div" style={{ whiteSpace: "normal" }}>
                  It still has {count(node.instances)} {node.instances === 1 ? "instance" : "instances"}, which cannot
                  be moved yet. Delete what is there first.
                </Text>
              )}
            </Menu.Item>
            <Menu.Item color="red" leftSection={<IconPlugConnectedX size={15} />} onClick={() => setAsking("fence")}>
              Declare dead
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      )}
      <ConfirmDialog
        opened={asking === "fence"}
        onClose={() => setAsking(undefined)}
        title={`Declare ${node.name} dead?`}
        confirm="It is off for good"
        danger
        typed={node.name}
        onConfirm={async () => {
          await fence.mutateAsync(node);
          toastDone(`${node.name} is declared dead`);
        }}
      >
        <Text size="sm" mb="xs">
          Only you can know that its host is off for good. Make sure that it is: a host that still runs and does not
          reach the controller goes on running its guests.
        </Text>
        <Text size="sm">
          {node.instances === 0
            ? "No instance is on it. "
            : node.instances === 1
              ? "Its instance fails with node_lost and can be recovered elsewhere, without what no version has. "
              : `Its ${count(node.instances)} instances fail with node_lost and can be recovered elsewhere, without what no version has. `}
          The objects in its share of the pool are gone. This cannot be taken back; the node can never return.
        </Text>
      </ConfirmDialog>
      <ConfirmDialog
        opened={asking === "drain"}
        onClose={() => setAsking(undefined)}
        title={`Drain ${node.name}?`}
        confirm="Drain"
        onConfirm={async () => watchOperation(await drain.mutateAsync(node))}
      >
        <Text size="sm" mb="xs">
          Other nodes get what it has of the pool: {objects} and it takes nothing new. Every object keeps all of its
          copies meanwhile.
        </Text>
        <Text size="sm">
          {node.instances === 0
            ? "No instance is on it, and no new one is placed there."
            : `Its ${node.instances === 1 ? "instance stays and goes on" : `${count(node.instances)} instances stay and go on`}. No new one is placed there.`}{" "}
          It can be ended at any time.
        </Text>
      </ConfirmDialog>
      <ConfirmDialog
        opened={asking === "remove"}
        onClose={() => setAsking(undefined)}
        title={`Remove ${node.name}?`}
        confirm="Remove"
        danger
        onConfirm={async () => {
          const operation = await remove.mutateAsync(node);
          if (operation !== undefined) {
            watchOperation(operation);
            return;
          }
          toastDone(`${node.name} is removed`);
          void navigate({ to: "/nodes" });
        }}
      >
        <Text size="sm">
          {isFenced
            ? "Its name becomes free. Instances that failed with it stay, and can still be recovered."
            : node.pool.objects > 0
              ? `Other nodes get what it has of the pool first: ${objects} which may take a while. It is removed when they have all. Cancel the operation to keep it.`
              : "It has no instances and no objects. It can no longer connect, and its name becomes free."}
        </Text>
      </ConfirmDialog>
    </>
  );
}
