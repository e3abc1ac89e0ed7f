import { Button, Group, Modal, Stack } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ApiError } from "../../api/client.ts";
import { type Network, usePatchNetwork } from "../../api/networks.ts";
import { ChangedMeanwhile } from "../../ui/ChangedMeanwhile.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { useBase } from "../../ui/use-base.ts";
import { useSubmit } from "../../ui/use-submit.ts";
import { NetworkFields } from "./NetworkFields.tsx";
import { formOf, networkFieldOf, patchOf, problemsOf } from "./network-form.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** The network as it is now. */
  network: Network;
}

/** Changes what can be changed in a network. */
export function ChangeNetwork(props: Props) {
  return (
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title={`Change network ${props.network.name}`}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Form {...props} />}
    </Modal>
  );
}

function Form({ onClose, network }: Props) {
  const { base, isOld, renew } = useBase(network);
  const [form, setForm] = useState(() => formOf(network));
  const client = useQueryClient();
  const change = usePatchNetwork();
  const problems = problemsOf(form);
  const ready = form.name.trim() !== "" && Object.keys(problems).length === 0 && !isOld;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    const patch = patchOf(form, base);
    try {
      if (Object.keys(patch).length > 0) await change.mutateAsync({ network, patch, ifMatch: base.etag });
    } catch (caught) {
      // The page has not heard of the other change yet.
      if (caught instanceof ApiError && caught.status === 412)
        await client.invalidateQueries({ queryKey: ["networks"] });
      throw caught;
    }
    onClose();
  });
  const { fields, beside } = refusalOf(error, networkFieldOf);
  const stale = beside instanceof ApiError && beside.status === 412;
  return (
    <form onSubmit={onSubmit} noValidate aria-label="Change network">
      <Stack gap="md">
        <NetworkFields
          form={form}
          change={(changes) => setForm((before) => ({ ...before, ...changes }))}
          errors={{ ...fields, ...problems }}
          made
        />
        {isOld && (
          <ChangedMeanwhile
            onTakeTheirs={() => {
              setForm(formOf(network));
              renew();
            }}
            onKeepMine={renew}
          >
            Now it is called {network.name}, its name servers are{" "}
            {network.dns.length === 0 ? "those of the nodes" : network.dns.join(", ")}, and its largest packet has{" "}
            {network.mtu} bytes.
          </ChangedMeanwhile>
        )}
        {beside !== undefined && !stale && <ErrorBox error={beside} title="It is not changed" />}
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={busy} disabled={!ready}>
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
