import { type SecurityGroup, useDeleteSecurityGroup } from "../../api/security-groups.ts";
import { type DeleteProps, DeleteThings } from "../../ui/DeleteThings.tsx";

/** Asks before security groups are deleted. The API deletes none that is used. */
export function DeleteGroups(props: DeleteProps<SecurityGroup>) {
  const { mutateAsync } = useDeleteSecurityGroup();
  return (
    <DeleteThings {...props} kind="security group" remove={mutateAsync}>
      This is refused while a deployment's cards have it, or a rule of another group names it.
    </DeleteThings>
  );
}
