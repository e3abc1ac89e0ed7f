import { ActionIcon, Button, Menu, Text } from "@mantine/core";
import { IconDots, IconPlugConnectedX, IconTrash, IconTruckDelivery } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { type Node, useFence, useRemoveNode, useSetSchedulable } from "../../api/nodes.ts";
import { useCommands } from "../../commands/registry.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { count } from "../../ui/format.ts";
import { toastDone, toastError } from "../../ui/toast.tsx";

/** What one can do with a node. */
export function NodeActions({ node }: { node: Node }) {
  const navigate = useNavigate();
  const [asking, setAsking] = useState<"fence" | "remove">();
  const set = useSetSchedulable();
  const fence = useFence();
  const remove = useRemoveNode();
  const isFenced = node.state === "fenced";
  // The API refuses to remove such a node, unless it was declared dead.
  const isInUse = !isFenced && (node.instances > 0 || node.pool.objects > 0);
  const place = async () => {
    try {
      await set.mutateAsync({ node, schedulable: !node.schedulable });
      toastDone(node.schedulable ? `${node.name} is cordoned` : `${node.name} takes new instances again`);
    } catch (error) {
      toastError(error);
    }
  };
  useCommands(
    () => [
      ...(isFenced
        ? []
        : [
            { id: "place", title: `${node.schedulable ? "Cordon" : "Uncordon"} ${node.name}`, run: () => void place() },
            { id: "fence", title: `Declare ${node.name} dead`, words: "fence lost", run: () => setAsking("fence") },
          ]),
      ...(isInUse ? [] : [{ id: "remove", title: `Remove ${node.name}`, run: () => setAsking("remove") }]),
    ],
    [node.name, node.schedulable, isFenced, isInUse],
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
          {node.schedulable ? "Cordon" : "Uncordon"}
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
            <Menu.Item leftSection={<IconTruckDelivery size={15} />} disabled>
              Drain
              <Text size="xs" component="div" style={{ whiteSpace: "normal" }}>
                Instances cannot be moved yet. Cordon it, then stop and delete what runs there.
              </Text>
            </Menu.Item>
            <Menu.Divider />
            <Menu.Item leftSection={<IconTrash size={15} />} disabled={isInUse} onClick={() => setAsking("remove")}>
              Remove
              {isInUse && (
                <Text size="xs" component="div" style={{ whiteSpace: "normal" }}>
                  It still has {count(node.instances)} instances and {count(node.pool.objects)} objects of the pool,
                  which cannot be moved yet.
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
        opened={asking === "remove"}
        onClose={() => setAsking(undefined)}
        title={`Remove ${node.name}?`}
        confirm="Remove"
        danger
        onConfirm={async () => {
          await remove.mutateAsync(node);
          toastDone(`${node.name} is removed`);
          void navigate({ to: "/nodes" });
        }}
      >
        <Text size="sm">
          {isFenced
            ? "Its name becomes free. Instances that failed with it stay, and can still be recovered."
            : "It has no instances and no objects. It can no longer connect, and its name becomes free."}
        </Text>
      </ConfirmDialog>
    </>
  );
}
