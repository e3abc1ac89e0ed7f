import { useState } from "react";
import { type Network, usePatchNetwork } from "../../api/networks.ts";
import { ChangedMeanwhile } from "../../ui/ChangedMeanwhile.tsx";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { isOvertaken, useBase } from "../../ui/use-base.ts";
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
    <Dialog opened={props.opened} onClose={props.onClose} title={`Change network ${props.network.name}`}>
      <Form {...props} />
    </Dialog>
  );
}

function Form({ onClose, network }: Props) {
  const { base, isOld, renew } = useBase(network);
  const [form, setForm] = useState(() => formOf(network));
  const change = usePatchNetwork();
  const problems = problemsOf(form);
  const ready = form.name.trim() !== "" && Object.keys(problems).length === 0 && !isOld;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    const patch = patchOf(form, base);
    if (Object.keys(patch).length > 0) await change.mutateAsync({ network, patch, ifMatch: base.etag });
    onClose();
  });
  const { fields, beside } = refusalOf(error, networkFieldOf);
  return (
    <DialogForm
      label="Change network"
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Save"
      busy={busy}
      ready={ready}
      error={isOvertaken(beside) ? undefined : beside}
      failed="It is not changed"
    >
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
    </DialogForm>
  );
}
