import { Stack, Text } from "@mantine/core";
import { type SecurityGroup, useDeleteSecurityGroup } from "../../api/security-groups.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { count } from "../../ui/format.ts";
import { toastDone } from "../../ui/toast.tsx";
import { NameList } from "../instances/actions/NameList.tsx";

interface Props {
  opened: boolean;
  groups: readonly SecurityGroup[];
  onClose: () => void;
  onDone: () => void;
}

/** Asks before security groups are deleted. The API deletes one at a time, and none that is used. */
export function DeleteGroups({ opened, groups, onClose, onDone }: Props) {
  const remove = useDeleteSecurityGroup();
  const [first] = groups;
  const what = groups.length === 1 ? `security group ${first?.name}` : `${count(groups.length)} security groups`;
  return (
    <ConfirmDialog
      opened={opened}
      onClose={onClose}
      title={`Delete ${what}?`}
      confirm="Delete"
      danger
      onConfirm={async () => {
        for (const group of groups) {
          await remove.mutateAsync(group);
          toastDone(`Security group ${group.name} is deleted`);
        }
        onDone();
      }}
    >
      <Stack gap="sm">
        {groups.length > 1 && <NameList things={groups} />}
        <Text size="sm">This is refused while a deployment's cards have it, or a rule of another group names it.</Text>
      </Stack>
    </ConfirmDialog>
  );
}
