import { Text } from "@mantine/core";
import type { Instance } from "../../api/instances.ts";
import { JsonView } from "../../ui/JsonView.tsx";
import { Panel } from "../../ui/Panel.tsx";

/** The network cards. The API has none yet; what it will send is shown as it is until its shape is fixed. */
export function AddressesPanel({ instance }: { instance: Instance }) {
  return (
    <Panel title="Addresses">
      {instance.nics.length > 0 ? (
        <JsonView value={instance.nics} label="addresses" />
      ) : (
        <Text size="sm" c="dimmed">
          None. Muster does not give instances a network card yet, so this one is reached by its console and its disk
          only.
        </Text>
      )}
    </Panel>
  );
}
