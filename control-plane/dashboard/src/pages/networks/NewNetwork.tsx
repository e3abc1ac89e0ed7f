import { Button, Code, Group, Modal, Stack } from "@mantine/core";
import { useState } from "react";
import { type Network, useCreateNetwork } from "../../api/networks.ts";
import { thingScope } from "../../api/scope.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
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
    <Modal
      opened={props.opened}
      onClose={props.onClose}
      title="New network"
      size="lg"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {props.opened && <Form {...props} />}
    </Modal>
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
    <form onSubmit={onSubmit} noValidate aria-label="New network">
      <Stack gap="md">
        <ProjectSelect description="Whose instances can have cards in it." value={project} onChange={setProject} />
        <NetworkFields
          form={form}
          change={(changes) => setForm((before) => ({ ...before, ...changes }))}
          errors={{ ...fields, ...problems }}
        />
        {beside !== undefined && <ErrorBox error={beside} title="It is not made" />}
        <Code px="sm" py={4}>
          <CopyId value={commandFor(createOf(form), project)} label="command" />
        </Code>
        <Group justify="flex-end" gap="sm">
          <Button variant="default" onClick={onClose}>
            Back
          </Button>
          <Button type="submit" loading={busy}>
            Make the network
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
