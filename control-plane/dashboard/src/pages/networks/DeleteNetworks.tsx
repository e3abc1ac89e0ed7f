import { type Network, useDeleteNetwork } from "../../api/networks.ts";
import { type DeleteProps, DeleteThings } from "../../ui/DeleteThings.tsx";

/** Asks before networks are deleted. The API deletes none that is used. */
export function DeleteNetworks(props: DeleteProps<Network>) {
  const { mutateAsync } = useDeleteNetwork();
  const used = props.things.filter(({ nics }) => nics > 0);
  return (
    <DeleteThings {...props} kind="network" remove={mutateAsync}>
      {used.length === 0
        ? "No instance has a card in it. What nodes made for it is removed."
        : `Instances have cards in ${used.map(({ name }) => name).join(", ")}, so this will be refused: delete their deployments first.`}
    </DeleteThings>
  );
}
