import { Text } from "@mantine/core";
import type { Instance } from "../../api/instances.ts";
import { JsonView } from "../../ui/JsonView.tsx";
import { Panel } from "../../ui/Panel.tsx";

/** The network cards, as the API shows them. */
export function AddressesPanel({ instance }: { instance: Instance }) {
  return (
    <Panel title="Addresses">
      {instance.nics.length > 0 ? (
        <JsonView value={instance.nics} label="addresses" />
      ) : (
        <Text size="sm" c="dimmed">
          None. It has no network card, so it is reached by its console and its disk only.
        </Text>
      )}
    </Panel>
  );
}
