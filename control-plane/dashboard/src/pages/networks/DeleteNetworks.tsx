import { Stack, Text } from "@mantine/core";
import { type Network, useDeleteNetwork } from "../../api/networks.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { count } from "../../ui/format.ts";
import { toastDone } from "../../ui/toast.tsx";
import { NameList } from "../instances/actions/NameList.tsx";

interface Props {
  opened: boolean;
  networks: readonly Network[];
  onClose: () => void;
  onDone: () => void;
}

/** Asks before networks are deleted. The API deletes one at a time, and none that is used. */
export function DeleteNetworks({ opened, networks, onClose, onDone }: Props) {
  const remove = useDeleteNetwork();
  const [first] = networks;
  const what = networks.length === 1 ? `network ${first?.name}` : `${count(networks.length)} networks`;
  const used = networks.filter(({ nics }) => nics > 0);
  return (
    <ConfirmDialog
      opened={opened}
      onClose={onClose}
      title={`Delete ${what}?`}
      confirm="Delete"
      danger
      onConfirm={async () => {
        for (const network of networks) {
          await remove.mutateAsync(network);
          toastDone(`Network ${network.name} is deleted`);
        }
        onDone();
      }}
    >
      <Stack gap="sm">
        {networks.length > 1 && <NameList things={networks} />}
        <Text size="sm">
          {used.length === 0
            ? "No instance has a card in it. What nodes made for it is removed."
            : `Instances have cards in ${used.map(({ name }) => name).join(", ")}, so this will be refused: delete their deployments first.`}
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}
