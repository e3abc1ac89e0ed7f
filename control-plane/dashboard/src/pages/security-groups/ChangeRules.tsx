import { List, TextInput } from "@mantine/core";
import { useState } from "react";
import { type PatchSecurityGroup, type SecurityGroup, usePatchSecurityGroup } from "../../api/security-groups.ts";
import { ChangedMeanwhile } from "../../ui/ChangedMeanwhile.tsx";
import { Dialog, DialogForm } from "../../ui/Dialog.tsx";
import { refusalOf } from "../../ui/field-errors.ts";
import { isOvertaken, useBase } from "../../ui/use-base.ts";
import { useSubmit } from "../../ui/use-submit.ts";
import { RulesEditor } from "./RulesEditor.tsx";
import { problemsOf, requestOf, rowFieldOf, rowsOf } from "./rule-rows.ts";
import { whatOf, whoOf } from "./rules.ts";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** The group as it is now. */
  group: SecurityGroup;
}

/** Changes the name and the rules of a security group. */
export function ChangeRules(props: Props) {
  return (
    <Dialog opened={props.opened} onClose={props.onClose} title={`Change security group ${props.group.name}`} size="xl">
      <Form {...props} />
    </Dialog>
  );
}

const fieldOf = (pointer: string) => (pointer === "/name" ? "name" : rowFieldOf(pointer));

function Form({ onClose, group }: Props) {
  const { base, isOld, renew } = useBase(group);
  const [name, setName] = useState(group.name);
  const [rows, setRows] = useState(() => rowsOf(group));
  const change = usePatchSecurityGroup();
  const problems = problemsOf(rows);
  const ready = name.trim() !== "" && Object.keys(problems).length === 0 && !isOld;
  const { busy, error, onSubmit } = useSubmit(ready, async () => {
    const rules = requestOf(rows, group.id);
    const patch: PatchSecurityGroup = {
      ...(name.trim() === base.name ? {} : { name: name.trim() }),
      ...(JSON.stringify(rules) === JSON.stringify(requestOf(rowsOf(base), group.id)) ? {} : { rules }),
    };
    if (Object.keys(patch).length > 0) await change.mutateAsync({ group, patch, ifMatch: base.etag });
    onClose();
  });
  const { fields, beside } = refusalOf(error, fieldOf);
  const errors = { ...fields, ...problems };
  return (
    <DialogForm
      label="Change security group"
      onSubmit={onSubmit}
      onClose={onClose}
      submit="Save"
      busy={busy}
      ready={ready}
      error={isOvertaken(beside) ? undefined : beside}
      failed="It is not changed"
    >
      <TextInput
        label="Name"
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        error={errors.name}
        autoComplete="off"
        spellCheck={false}
        data-autofocus
      />
      <RulesEditor rows={rows} onChange={setRows} errors={errors} project={group.project} self={group.id} />
      {isOld && (
        <ChangedMeanwhile
          onTakeTheirs={() => {
            setName(group.name);
            setRows(rowsOf(group));
            renew();
          }}
          onKeepMine={renew}
        >
          Now it is called {group.name} and has {group.rules.length === 0 ? "no rules." : "these rules:"}
          <List size="sm">
            {group.rules.map((rule, n) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: rules have no ids, and two may be the same
              <List.Item key={n}>
                {rule.direction}: {whatOf(rule)} {whoOf(rule)}
              </List.Item>
            ))}
          </List>
        </ChangedMeanwhile>
      )}
    </DialogForm>
  );
}
