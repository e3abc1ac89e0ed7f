import { useState } from "react";
import { type Deployment, usePatchProtect } from "../../../api/deployments.ts";
import { Dialog, DialogForm } from "../../../ui/Dialog.tsx";
import { refusalOf } from "../../../ui/field-errors.ts";
import { toastDone } from "../../../ui/toast.tsx";
import { useSubmit } from "../../../ui/use-submit.ts";
import { ProtectFields } from "./ProtectFields.tsx";
import { protectFieldOf, protectForm, protectMeantBy, protectOf, protectPatch } from "./protect-form.ts";

/** Begins to protect a deployment, or changes how. */
export function ProtectDialog({ deployment, onClose }: { deployment: Deployment; onClose: () => void }) {
  // What others change meanwhile stays as they want it: only what is changed here is sent.
  const [before] = useState(() => protectOf(deployment));
  const [form, setForm] = useState(() => protectForm(before));
  const patch = usePatchProtect();
  const { protect, unread } = protectMeantBy(form);
  const ready = protect !== undefined && Object.keys(unread).length === 0;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    const changes = protectPatch(form, before);
    if (Object.keys(changes).length > 0) {
      await patch.mutateAsync({ deployment, protect: changes });
      toastDone(`${deployment.name} is saved every ${protect?.every}`);
    }
    onClose();
  });
  const { fields, beside } = refusalOf(error, protectFieldOf);
  return (
    <Dialog opened onClose={onClose} title={`Protect ${deployment.name}`}>
      <DialogForm
        label="Protect"
        onSubmit={onSubmit}
        onClose={onClose}
        submit={before === undefined ? "Protect" : "Save"}
        busy={busy}
        ready={ready}
        error={beside}
        failed="It is not changed"
      >
        <ProtectFields
          form={form}
          change={(changes) => setForm((now) => ({ ...now, ...changes }))}
          errors={{ ...fields, ...unread }}
        />
      </DialogForm>
    </Dialog>
  );
}
