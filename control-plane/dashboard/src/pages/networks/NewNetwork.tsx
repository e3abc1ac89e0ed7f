import { useState } from "react";
import { type Network, useCreateNetwork } from "../../api/networks.ts";
import { thingScope } from "../../api/scope.ts";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { ProjectSelect } from "../../ui/ProjectSelect.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { useSubmit } from "../../ui/use-submit.ts";
import { NetworkFields } from "./NetworkFields.tsx";
import { commandFor, createOf, emptyNetwork, networkFieldOf, problemsOf } from "./network-form.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  onMade: (network: Network) => void;
}

/** Asks what a network is to be like, and makes it. */
export function NewNetwork(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title="New network" size="lg">
      <Form {...props} />
    </Dialog>
  );
}

function Form({ onClose, onMade }: Props) {
  const [form, setForm] = useState(emptyNetwork);
  const [project, setProject] = useState(thingScope());
  const create = useCreateNetwork();
  const problems = problemsOf(form);
  const { busy, error, onSubmit } = useSubmit(Object.keys(problems).length === 0, async () => {
    const network = await create.mutateAsync({ project, request: createOf(form) });
    toastDone(`Network ${network.name} is made`);
    onClose();
    onMade(network);
  });
  const { fields, beside } = refusalOf(error, networkFieldOf);
  return (
    <DialogForm
      label="New network"
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Make the network"
      busy={busy}
      error={beside}
      failed="It is not made"
      command={commandFor(createOf(form), project)}
    >
      <ProjectSelect description="Whose instances can have cards in it." value={project} onChange={setProject} />
      <NetworkFields
        form={form}
        change={(changes) => setForm((before) => ({ ...before, ...changes }))}
        errors={{ ...fields, ...problems }}
      />
    </DialogForm>
  );
}
